"""The stage fetch-champion: the model in use, and how it was made."""
