"""The stage matrix-prune."""
