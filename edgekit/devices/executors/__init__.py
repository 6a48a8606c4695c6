"""Executors, one a file: where models run."""
