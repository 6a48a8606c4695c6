"""Floor 2: device profiles, constraining a process like a device, and the cost models."""
