"""Plain values without I/O: tensor and variant specs, recipes, budgets, tuning options."""
