"""Metrics, statistics, comparison, tolerances, quantization arithmetic, tensor layout and batching."""
