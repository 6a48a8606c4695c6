"""Source kinds, one file each; `bridges/` converts one kind to another."""
