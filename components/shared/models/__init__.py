"""Families, shapes and surgery; model folders and their records."""
