"""Pipelines on one's own machine: `bonsai run` and `bonsai retrain`."""
