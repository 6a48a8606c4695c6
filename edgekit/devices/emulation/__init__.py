"""The `emulated` tier: the arm64 build of a runtime runs an artifact under QEMU, which counts its instructions."""
