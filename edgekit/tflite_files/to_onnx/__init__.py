"""Translation of float32 flatbuffers into ONNX graphs, one module per kind of operator."""
