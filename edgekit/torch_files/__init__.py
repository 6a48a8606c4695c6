"""Checks of PyTorch's file formats that run before PyTorch opens a file."""
