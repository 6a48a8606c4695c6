"""Floor 1: runtimes, one per file, that run artifacts. They import the standard library, numpy and `edgekit.core`."""
