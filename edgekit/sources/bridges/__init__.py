"""Bridges, one file each, named `SOURCE_to_TARGET.py`: `BRIDGE` loads a file of one kind as a model of another."""
