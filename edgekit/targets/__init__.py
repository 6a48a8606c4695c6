"""Targets: one module per deployable format, which converts sources to it and reads its files."""
