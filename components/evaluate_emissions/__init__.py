"""The stage evaluate-emissions."""
