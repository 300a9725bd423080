"""Joules and grams."""
