"""Size, latency and memory of artifacts: on this host, on an emulated core, on a microcontroller or NPU."""
