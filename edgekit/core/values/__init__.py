"""Plain values without I/O: tensor and variant specs, recipes, budgets, file names."""
