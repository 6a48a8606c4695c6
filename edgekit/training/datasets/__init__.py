"""Data sets, read from installed packages, from files, or from `keras.datasets`, and cut into disjoint parts."""
