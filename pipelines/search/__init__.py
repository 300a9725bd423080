"""The parts of a search that are stages put together: on a cluster each is a task, here they run in one process."""
