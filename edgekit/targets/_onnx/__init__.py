"""What the ONNX target's conversions share."""
