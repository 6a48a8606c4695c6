"""The `emulated` tier: the real arm64 runtime runs an artifact under QEMU, which counts what the core would execute."""
