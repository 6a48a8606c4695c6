"""Checks of TensorFlow model files before TensorFlow opens them."""
