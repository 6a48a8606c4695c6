"""Shared code of the targets that convert from PyTorch."""
