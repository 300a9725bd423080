"""The stage select-model: the compressed model that meets the user's target best."""
