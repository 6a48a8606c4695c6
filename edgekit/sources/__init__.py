"""Floor 1: one file a source kind: load it, run it. `bridges/` turns one kind into another."""
