"""The stage package-model: the chosen model with a card that says what was measured."""
