"""Validation of the files that users write: an unknown key or a wrong value is an error with file, line and key."""
