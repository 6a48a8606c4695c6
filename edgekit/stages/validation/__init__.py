"""Comparison of artifacts with their sources: outputs, task metric, layers, file integrity."""
