"""Floor 0: values and pure functions. Imports the standard library and numpy, nothing else."""
