"""Rows of text, from a split on disk to tokens."""
