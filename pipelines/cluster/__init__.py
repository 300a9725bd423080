"""Pipelines on a cluster: compiled, submitted, followed; and what runs there beside the stages."""
