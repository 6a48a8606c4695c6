"""Data sets read from installed packages, from files or from `keras.datasets`, and split into disjoint parts."""
