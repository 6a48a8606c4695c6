"""The number of calibration samples that an export uses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.core.environment.project import open_project
from edgekit.core.errors import InputError
from edgekit.core.records.samples import Samples
from edgekit.core.values.specs import Signature, TensorSpec, Variant
from edgekit.stages.conversion import export, export_plans

SIGNATURE = Signature((TensorSpec("x", ("batch", 4), "float32"),), ())


@pytest.mark.parametrize(
    ("available", "requested", "used"), [(256, None, 200), (96, None, 96), (256, 256, 256), (96, 50, 50)]
)
def test_the_default_is_all_samples_if_the_source_has_fewer(
    tmp_path: Path, available: int, requested: int | None, used: int
) -> None:
    assert len(calibration_samples(tmp_path, available, requested).inputs["x"]) == used


def test_requesting_more_samples_than_available_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="200 calibration samples requested, but the source has 96"):
        calibration_samples(tmp_path, 96, 200)


@pytest.mark.parametrize(("available", "requested"), [(1, None), (96, 1)])
def test_a_single_sample_is_refused(tmp_path: Path, available: int, requested: int | None) -> None:
    with pytest.raises(InputError, match="from a single calibration sample"):
        calibration_samples(tmp_path, available, requested)


def calibration_samples(root: Path, available: int, requested: int | None) -> Samples:
    project = open_project(root)
    folder = project.source_folder("m", "keras")
    folder.mkdir(parents=True)
    values = np.random.default_rng(0).normal(size=(available, 4)).astype(np.float32)
    for name in ("calibration.npz", "golden.npz"):
        Samples({"x": values}, {}, None).save(folder / name)
    context = SimpleNamespace(project=project, emit=lambda event: None)
    export_plan = SimpleNamespace(
        model="m", kind="keras", variant=Variant("tflite", "int8"), step="export m/keras tflite:int8"
    )
    return export._calibration(
        context,
        export_plan,
        SimpleNamespace(name="m", signature=SIGNATURE, has_real_samples=True),
        export_plans.ExportSettings(requested),
    )
