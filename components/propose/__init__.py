"""propose: what a search tries next, given all that it has tried."""
