"""What the targets that start from PyTorch share."""
