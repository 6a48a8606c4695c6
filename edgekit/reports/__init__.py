"""Floor 3: one file a format. A `Report` in, text out."""
