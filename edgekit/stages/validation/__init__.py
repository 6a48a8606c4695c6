"""Comparing artifacts with their source: outputs, task metric, layers, file integrity."""
