"""Browsers on this host as devices: their names, and the set-up of what they run."""
