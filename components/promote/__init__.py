"""The stage promote: the champion changes only for a model that is not worse."""
