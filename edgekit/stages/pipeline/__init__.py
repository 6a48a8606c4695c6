"""`edgekit run`: plans the step graph of edgekit.toml, schedules its steps and executes them."""
