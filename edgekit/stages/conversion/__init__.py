"""Conversion of source models to artifacts, and inspection of model files."""
