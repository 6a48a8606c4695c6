"""What lies on disk as JSON or npz, one file a schema."""
