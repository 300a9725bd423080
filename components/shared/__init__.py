"""Leaves that the stages share. Nothing here imports a stage or knows Kubeflow Pipelines."""
