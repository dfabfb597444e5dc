"""Datasets as indexed tar shards, their order as a pure function, and reading ahead of the step."""
