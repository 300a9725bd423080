"""The stage quantize."""
