"""The lowest layer: errors, events, units, values, numerics and records; needs only the standard library and numpy."""
