"""Floor 2: executors, the emulation of devices, resource limits of this host, and cost models."""
