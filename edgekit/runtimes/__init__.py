"""Runtimes, one per file, that run artifacts. They import their library in functions, when it is needed."""
