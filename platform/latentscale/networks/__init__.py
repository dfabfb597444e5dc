"""Generators and discriminators: equalised layers, one file a family, and their deterministic initialisation."""
