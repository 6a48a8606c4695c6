"""The choice between ways to quantize, by samples that none was calibrated with."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.contracts.target import ConversionRequest, ConversionResult
from edgekit.core.errors import StepCrashed, StepFailed
from edgekit.core.events import ignore
from edgekit.core.values.specs import Signature, TensorSpec, Variant
from edgekit.stages.conversion import export, repair
from edgekit.stages.conversion.convert_job import ConvertRequest
from edgekit.stages.conversion.export_plans import ExportPlan
from edgekit.stages.conversion.repair import SelectionSamples, convert_best
from edgekit.workers.environment import Environment

SIGNATURE = Signature((TensorSpec("x", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 4), "float32"),))
NOISE = {"plain": 0.3, "equalized": 0.1, "moving-average": 0.5, "equalized moving-average": 0.04}


class Source:
    """A source that returns its inputs."""

    kind = "torch"
    sizes = {}
    signature = SIGNATURE

    def __init__(self, name="", changes=0.0):
        self.name, self.changes = name, changes

    def run(self, inputs):
        return {"y": inputs["x"] + np.float32(self.changes)}

    def at(self, _signature, _sizes):
        return self

    def equalized(self, inputs, _migration):
        assert len(inputs["x"]) == 80
        return Source("equalized", self.changes)


class Target:
    """A target whose files name how they were made."""

    name, runtime = "fake", "fake"
    calibrated = selective = frozenset({"int8"})
    calibrations = ("minmax", "moving-average")

    def __init__(self, failing=""):
        self.failing, self.made = failing, []

    def convert(self, source, job):
        words = [source.name, "" if job.recipe is None else job.recipe.calibration]
        way = " ".join(filter(None, words)) or "plain"
        if way == self.failing:
            raise StepFailed("no such conversion")
        self.made.append((way, len(job.calibration["x"])))
        (job.folder / "model.bin").write_text(way)
        return ConversionResult("model.bin", SIGNATURE, {"converter": "fake"})


class Runtime:
    """A runtime that adds the noise of the way in which a file was made."""

    requires = ()

    def open(self, path, **_):
        self.noise = NOISE[path.read_text()]
        return self

    def infer(self, inputs):
        sign = np.where(np.arange(inputs["x"].size).reshape(inputs["x"].shape) % 2, 1, -1)
        return {"y": (inputs["x"] + self.noise * sign).astype(np.float32)}


@pytest.fixture
def convert(tmp_path, monkeypatch):
    monkeypatch.setattr(repair, "RUNTIMES", type("Runtimes", (), {"load": staticmethod(lambda _: Runtime())}))
    x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)

    def run(target, source=None, *, few=False):
        source = source or Source()
        job = ConversionRequest("int8", tmp_path, {"x": x if few else x[:80]})
        selection = SelectionSamples({"x": x[80:]}, {"x": x[:80]}, {"x": x[:80]} if few else None)
        converted = convert_best(target, source, source, job, selection)
        assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]
        return converted, (tmp_path / "model.bin").read_text()

    return run


def test_each_step_that_gains_something_is_kept_and_told(convert):
    converted, way = convert(Target())
    assert way == "equalized moving-average"
    assert converted.options == {"converter": "fake", "repair": {"ranges": "moving-average", "migration": 0.5}}
    assert "dB on samples of their own" in converted.notes[-1]


def test_a_file_that_is_good_enough_is_not_improved(convert, monkeypatch):
    monkeypatch.setitem(NOISE, "plain", 0.01)
    target = Target()
    converted, way = convert(target)
    assert way == "plain"
    assert target.made == [("plain", 80)]
    assert converted.options == {"converter": "fake"}
    assert converted.notes == ()


def test_steps_that_gain_nothing_or_fail_leave_the_plain_file(convert, monkeypatch):
    monkeypatch.setitem(NOISE, "equalized", 0.29)
    assert convert(Target(failing="equalized moving-average"))[1] == "plain"


def test_files_that_cannot_be_run_are_not_preferred(convert, monkeypatch):
    for way in NOISE:
        monkeypatch.setitem(NOISE, way, np.nan)
    assert convert(Target())[1] == "plain"


def test_without_the_runtime_nothing_is_searched(convert, monkeypatch):
    missing = type("Missing", (), {"installed": staticmethod(lambda: False)})
    monkeypatch.setattr(Runtime, "requires", (missing,))
    target = Target()
    assert convert(target)[1] == "plain"
    assert target.made == [("plain", 80)]


def test_a_float_network_that_changes_is_not_converted(convert, monkeypatch):
    monkeypatch.setattr(Source, "equalized", lambda self, _inputs, _migration: Source("equalized", 0.001))
    target = Target()
    assert convert(target)[1] == "plain"
    assert {way for way, _ in target.made} == {"plain", "moving-average"}


def test_the_file_is_calibrated_with_all_samples_where_there_are_few(convert):
    target = Target()
    assert convert(target, few=True)[1] == "equalized moving-average"
    assert target.made == [
        ("plain", 100),
        ("equalized", 80),
        ("equalized", 80),
        ("equalized moving-average", 80),
        ("equalized moving-average", 100),
    ]


def test_a_search_that_ends_its_worker_is_left_out(tmp_path):
    requests = []

    def call(_job, request, **_):
        requests.append(request)
        if request.selection is not None:
            (tmp_path / "plain").mkdir()
            raise StepCrashed("the process was ended by SIGSEGV")
        return "the answer"

    context = SimpleNamespace(pool=SimpleNamespace(call=call), emit=ignore)
    samples = SelectionSamples({"x": np.zeros((16, 4))}, {"x": np.zeros((64, 4))})
    request = ConvertRequest("", None, None, "fake", "int8", str(tmp_path), selection=samples)
    plan = ExportPlan("net", "torch", Variant("fake", "int8"), ())
    assert export._convert(context, plan, request, Environment()) == "the answer"
    assert [wanted.selection for wanted in requests] == [samples, None]
    assert list(tmp_path.iterdir()) == []
