"""`edgekit run`: planning the step graph of edgekit.toml, scheduling it, executing its steps."""
