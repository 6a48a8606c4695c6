"""How many calibration samples an export takes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.core.environment.project import open_project
from edgekit.core.errors import InputError
from edgekit.core.records.samples import Samples
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.stages.conversion import export

SIGNATURE = Signature((TensorSpec("x", ("batch", 4), "float32"),), ())


@pytest.mark.parametrize(("kept", "wanted", "taken"), [(256, None, 200), (96, None, 96), (256, 256, 256), (96, 50, 50)])
def test_the_default_is_all_where_the_model_keeps_fewer(
    tmp_path: Path, kept: int, wanted: int | None, taken: int
) -> None:
    assert len(chosen(tmp_path, kept, wanted).inputs["x"]) == taken


def test_more_than_there_are_is_refused_when_they_were_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="200 calibration samples were asked for; the trained model keeps 96"):
        chosen(tmp_path, 96, 200)


def chosen(root: Path, kept: int, wanted: int | None) -> Samples:
    project = open_project(root)
    folder = project.source_folder("m", "keras")
    folder.mkdir(parents=True)
    values = np.random.default_rng(0).normal(size=(kept, 4)).astype(np.float32)
    for name in ("calibration.npz", "golden.npz"):
        Samples({"x": values}, {}, None).save(folder / name)
    context = SimpleNamespace(project=project, emit=lambda event: None)
    item = SimpleNamespace(model="m", kind="keras", variant="tflite:int8", step="export m/keras tflite:int8")
    return export._calibration(
        context, item, SimpleNamespace(name="m", signature=SIGNATURE, notes=()), export.ExportSettings(wanted)
    )
