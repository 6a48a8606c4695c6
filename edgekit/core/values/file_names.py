"""Names of the files in a source or artifact folder that several stages read."""

from __future__ import annotations

SOURCE_FILE = "source.json"
CALIBRATION_FILE = "calibration.npz"
GOLDEN_FILE = "golden.npz"
TEST_FILE = "test.npz"
MANIFEST_FILE = "manifest.json"
