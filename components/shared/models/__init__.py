"""Families, shapes and surgery."""
