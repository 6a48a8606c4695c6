"""Floor 1: one file a target: which sources and precisions it takes, how it converts, what is in its files."""
