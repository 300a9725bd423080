"""The stage report: what was saved, at what price, and whether to believe it."""
