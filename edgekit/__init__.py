"""edgekit takes a trained network to the devices it must run on, and proves that it arrived whole."""

__version__ = "0.1.0"
