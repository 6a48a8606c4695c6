"""Names of the files that a build folder holds, by what writes them."""

from __future__ import annotations

SOURCE_FILE = "source.json"
CALIBRATION_FILE = "calibration.npz"
GOLDEN_FILE = "golden.npz"
TEST_FILE = "test.npz"
MANIFEST_FILE = "manifest.json"
