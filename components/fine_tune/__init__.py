"""The stage fine-tune."""
