"""The stage distill."""
