"""ONNX graphs as PyTorch modules: `graph.py` builds the module, `operators_*.py` implement the operators."""
