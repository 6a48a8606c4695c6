"""Exports within a test session."""

import pytest

from edgekit.core.errors import InputError
from edgekit.testing._export import Exporter


def test_an_export_after_a_failed_one_has_a_folder_of_its_own(tmp_path):
    exporter = Exporter(tmp_path)
    with pytest.raises(InputError):
        exporter.export(tmp_path / "missing.onnx", "onnx:float32")
    with pytest.raises(InputError):
        exporter.export(tmp_path / "missing-too.onnx", "onnx:float32")
    assert len({folder.name for folder in tmp_path.iterdir()}) == 2
