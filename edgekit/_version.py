"""edgekit's version; modules import it from here, so that they do not depend on the package's public names."""

__version__ = "0.1.0"
