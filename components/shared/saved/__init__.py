"""Model folders: read, checked, written and told apart."""
