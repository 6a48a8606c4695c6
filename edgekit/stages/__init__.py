"""Floor 3: train, export, validate, bench, check: typed values in, typed values out, new files written."""
