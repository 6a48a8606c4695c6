"""Executors, boards, browsers, the emulation of devices, resource limits of this host, and cost models."""
