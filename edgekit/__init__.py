"""edgekit takes a trained network to the devices it must run on, and proves that it arrived whole."""

from edgekit._version import __version__ as __version__
