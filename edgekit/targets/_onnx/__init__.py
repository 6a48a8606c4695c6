"""Shared code of the ONNX target."""
