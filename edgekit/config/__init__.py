"""The door: what a person hands in is validated here, unknown keys refused, with file, key and what is allowed."""
