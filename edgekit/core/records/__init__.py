"""The records that edgekit writes to disk as JSON or npz, one module a schema."""
