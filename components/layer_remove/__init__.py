"""The stage layer-remove."""
