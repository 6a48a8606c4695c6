"""Modules that worker processes import."""
