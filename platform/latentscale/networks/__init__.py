"""Generators and discriminators: equalised layers, one file per network family, deterministic initialisation."""
