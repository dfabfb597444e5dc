"""Launching the processes of a run on one node or many, and their reports to the launcher."""
