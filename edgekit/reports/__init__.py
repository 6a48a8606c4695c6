"""Report formats, one per file: each renders a `Report` as text."""
