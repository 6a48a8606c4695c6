"""Executors, one per file: they run models on this host, an emulated core, a board or in a browser."""
