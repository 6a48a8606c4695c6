"""Floor 1: one file a framework: the training loop; and data sets."""
