"""What `make test-containers` tells in the end: how large the images are, how long things took."""

FIGURES: list[str] = []
