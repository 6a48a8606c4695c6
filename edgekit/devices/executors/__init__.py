"""Executors, one per file: they run models on this host or on an emulated device."""
