"""Build a dataset: worker processes prepare a source's samples, one process writes them. A killed build can resume."""
