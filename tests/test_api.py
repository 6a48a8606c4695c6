"""The Python API: its names, types and import cost, and each function on real artifacts."""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from _helpers.support import REPOSITORY, processes_with

import edgekit as package
from edgekit import api
from edgekit.core.errors import EXIT_CHECK_FAILED, InputError, MissingDependency, StepCrashed, StepError, StepFailed
from edgekit.core.events import Event, FailEvent, FinishEvent
from edgekit.workers.pool import DEFAULT_TIMEOUT_S

FIXTURES = Path(__file__).parent / "fixtures"
FUNCTIONS = ("bench", "check", "compare", "export", "load_artifact", "quantization_aware", "validate")
HEAVY = {"numpy", "click", "pydantic", "rich", "tensorflow", "keras", "torch", "onnx", "onnxruntime", "ai_edge_litert"}


def modules_after(code: str) -> set[str]:
    script = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_but_its_version() -> None:
    assert {name for name in modules_after("import edgekit") if "edgekit" in name} == {"edgekit", "edgekit._version"}


def test_importing_a_function_imports_no_framework_and_no_command_line() -> None:
    modules = modules_after("from edgekit import export")
    assert not modules & HEAVY
    # Neither the modules that take most of Python's own start: dataclasses, typing, pathlib, contextlib, threading …
    assert modules <= {"edgekit", "edgekit._version", "edgekit.api", "__future__"}


def test_the_package_has_exactly_the_public_names() -> None:
    assert package.__all__ == ["Session", "__version__", *FUNCTIONS]
    assert set(package.__all__) <= set(dir(package))
    for name in (*FUNCTIONS, "Session"):
        assert getattr(package, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="module 'edgekit' has no attribute 'exprot'"):
        package.exprot  # noqa: B018 - reading it is the test


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("load_artifact", "quantization_aware")])
def test_a_method_of_a_session_has_the_parameters_of_its_function(name: str) -> None:
    function, method = (inspect.signature(item).parameters for item in (getattr(api, name), getattr(api.Session, name)))
    of_session = {"root", "on_event"} | ({"timeout_s"} - method.keys())
    assert [key for key in function if key not in of_session] == [key for key in method if key not in ("self", "root")]
    for key in method.keys() - {"self", "root"}:
        assert (function[key].annotation, function[key].default) == (method[key].annotation, method[key].default)


def test_the_time_limit_of_a_step_is_the_same_everywhere() -> None:
    calls = (api.Session, api.export, api.validate, api.compare)
    assert {inspect.signature(call).parameters["timeout_s"].default for call in calls} == {DEFAULT_TIMEOUT_S}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_documents_its_arguments_result_errors_and_an_example(name: str) -> None:
    text = inspect.getdoc(getattr(api, name)) or ""
    assert all(f"\n{section}:\n" in text for section in ("Args", "Returns", "Raises", "Example"))
    for parameter in inspect.signature(getattr(api, name)).parameters:
        assert f"    {parameter}: " in text


TYPED = """from pathlib import Path

import edgekit

with edgekit.Session("project") as session:
    artifacts = session.export("net.onnx", target=["tflite", "onnx:int8"], dims={{"batch": 1}})
    sizes: list[int] = [artifact.manifest.size_bytes for artifact in artifacts]
    session.validate(artifacts)
verdicts: list[bool] = [validation.passed for validation in edgekit.validate(Path("build/net/onnx/tflite-int8"))]
latency_ms: float = edgekit.bench("net", device="all")[0].latency_ms["host"]
result = edgekit.check("net", max_size="500 KB", max_latency_ms={{"host": {limit}}})
failed: list[str] = [verdict.sentence for verdict in result.failed]
verdict: str = edgekit.compare("net.onnx", artifacts[0], samples="samples.npz").verdict
folder: Path = edgekit.load_artifact("build/net/onnx/tflite-int8").folder
version: str = edgekit.__version__
"""


def type_check(folder: Path, text: str) -> str:
    (folder / "program.py").write_text(text)
    cache = REPOSITORY / ".mypy_cache"
    # The configuration and the cache of `make lint` save the analysis of the package itself.
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", REPOSITORY / "pyproject.toml"]
    done = subprocess.run(
        [*command, "--cache-dir", cache, folder / "program.py"], cwd=REPOSITORY, capture_output=True, text=True
    )
    return done.stdout


def test_the_wheel_contains_the_marker_of_typed_packages_and_the_version() -> None:
    """As hatchling selects the files of the wheel, without building it."""
    from hatchling.builders.wheel import WheelBuilder

    builder = WheelBuilder(str(REPOSITORY))
    files = {file.distribution_path for file in builder.recurse_selected_project_files()}
    assert {"edgekit/py.typed", "edgekit/api.py"} <= files
    assert builder.metadata.version == package.__version__


@pytest.mark.slow
def test_type_checkers_see_the_types_of_the_package(tmp_path: Path) -> None:
    assert (REPOSITORY / "edgekit/py.typed").is_file()
    assert type_check(tmp_path, TYPED.format(limit=5.0)) == "Success: no issues found in 1 source file\n"
    wrong = type_check(tmp_path, TYPED.format(limit="'5 ms'"))
    assert 'Dict entry 0 has incompatible type "str": "str"; expected "str": "float"' in wrong
    assert "Found 1 error" in wrong
    assert 'has no attribute "exprot"' in type_check(tmp_path, "import edgekit\n\nedgekit.exprot()\n")


@pytest.fixture(scope="module")
def session(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[api.Session]:
    """A session in a project of its own: the sources of `linear` and one artifact of each small model."""
    root = tmp_path_factory.mktemp("api")
    for folder in (
        "linear/keras/source",
        "linear/torch/source",
        "simple_cnn/keras/source",
        "simple_cnn/keras/tflite-int8",
    ):
        shutil.copytree(project / "build" / folder, root / "build" / folder)
    with api.Session(root) as session:
        yield session


@pytest.fixture(scope="module")
def exported(session: api.Session) -> tuple[api.Artifact, ...]:
    return session.export("linear", framework="keras", target=("tflite:float32", "onnx:float32"))


def test_an_export_returns_the_artifacts_that_it_wrote(session: api.Session, exported) -> None:
    assert [str(artifact.manifest.variant) for artifact in exported] == ["tflite:float32", "onnx:float32"]
    folder = session.root / "build/linear/keras/tflite-float32"
    assert exported[0].folder == folder
    assert exported[0].verified_path().is_file()
    assert package.load_artifact(folder) == package.load_artifact(folder / "manifest.json") == exported[0]


def test_validations_of_artifacts_are_values(session: api.Session, exported) -> None:
    validations = session.validate(exported)
    assert [(item.target, item.passed, item.failures) for item in validations] == [
        ("tflite", True, ()),
        ("onnx", True, ()),
    ]


def test_measurements_of_an_artifact(session: api.Session, exported) -> None:
    (measurement,) = session.bench(exported[0], min_duration_s=0.01, min_runs=5)
    assert measurement.device == "host"
    assert measurement.latency_ms["host"] > 0
    assert measurement.size_bytes == exported[0].manifest.size_bytes


def test_a_verdict_that_fails_is_a_value(session: api.Session, exported) -> None:
    session.validate(exported)
    session.bench(exported[0], min_duration_s=0.01, min_runs=5)
    budgets = {"max_size": "1 MB", "max_latency_ms": {"host": 1000.0}}
    passed = package.check(exported[0], root=session.root, **budgets)
    assert passed.passed, [verdict.sentence for verdict in passed.failed]
    failed = package.check("linear", target="tflite", max_size=100, root=session.root)
    assert not failed.passed
    (verdict,) = failed.failed
    assert (verdict.rule, verdict.limit, verdict.figure) == ("size_bytes", 100, exported[0].manifest.size_bytes)
    assert verdict.origin == "the arguments of check"
    assert "exceeds the limit 100 B, set in the arguments of check" in verdict.sentence
    unmeasured = package.check(exported[1], max_latency_ms={"host": 5.0}, root=session.root)
    assert [item.detail for item in unmeasured.failed] == ["not measured; run: edgekit bench"]


def test_a_comparison_takes_arrays_and_artifacts(session: api.Session, exported) -> None:
    tflite, onnx = exported
    golden = tflite.golden()
    (inputs,) = golden.inputs.values()
    result = session.compare(onnx, tflite, samples=inputs)
    assert result.verdict == "equal"
    other = shutil.copytree(tflite.folder, session.root / "copy")
    assert session.compare(tflite.path, other, samples=golden.inputs).verdict == "equal"
    alike = session.compare(onnx, tflite.folder, samples=np.zeros_like(inputs))
    assert alike.verdict == "no evidence"


def test_models_of_different_functions_are_not_equal_and_nothing_raises(session: api.Session, project: Path) -> None:
    keras, torch = (project / f"build/simple_cnn/{kind}/onnx-float32" for kind in ("keras", "torch"))
    golden = package.load_artifact(keras).golden()
    result = session.compare(keras, torch, samples=golden.inputs, labels=golden.labels)
    assert result.verdict == "not equal"
    assert any(comparison.failures for comparison in result.comparisons)
    assert result.task is not None


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("export", {"model": "missing.onnx"}, "missing.onnx: no such file or folder"),
        ("export", {"model": "linear", "target": "tfilte"}, "unknown target 'tfilte'; known: "),
        ("export", {"model": "linear", "layout": "CHWN"}, r"layout must be NCHW or NHWC \(got 'CHWN'\)"),
        ("export", {"model": "linear", "dims": {"batch": 0}}, r"dims: batch: must be a positive int \(got 0\)"),
        ("export", {"model": "linear", "calibration_samples": 0}, "calibration_samples must be at least 1"),
        ("validate", {"models": "linaer"}, "unknown model or artifact folder 'linaer'"),
        ("validate", {"timeout_s": 0}, "timeout_s: must be a positive number"),
        ("bench", {"device": "toaster"}, "unknown device 'toaster'; known: "),
        ("bench", {"min_runs": 0}, r"min_runs: must be at least 1 \(got 0\)"),
        ("compare", {"first": "a.onnx", "second": "b", "samples": "c.npz"}, "a.onnx: no such file or folder"),
        ("compare", {"first": "a", "second": "b", "samples": "c", "precision": "int7"}, "unknown precision 'int7'"),
        ("check", {"max_latency_ms": {"guess": 1}}, "unknown tier 'guess'"),
        ("check", {"max_latency_ms": {"host": 0}}, "max_latency_ms: host: must be a positive number"),
        ("check", {"max_size": "big"}, "big"),
        ("check", {"max_drift": float("nan")}, "max_drift: must be at least 0"),
        ("check", {"max_regression": 0.1}, "max_regression needs a baseline to compare with"),
        ("check", {"root": "missing"}, "missing: no such folder"),
    ],
)
def test_invalid_arguments_raise_an_input_error(tmp_path: Path, function: str, arguments, message: str) -> None:
    with pytest.raises(InputError, match=message):
        getattr(package, function)(**{"root": tmp_path, **arguments})


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json"):
        package.load_artifact(tmp_path)


def test_a_damaged_artifact_raises_after_the_other_ones(session: api.Session, exported, tmp_path: Path) -> None:
    good = shutil.copytree(exported[0].folder, tmp_path / "good")
    (good / "validation.json").unlink(missing_ok=True)
    bad = shutil.copytree(exported[0].folder, tmp_path / "bad")
    (bad / "model.tflite").write_bytes(b"truncated")
    with pytest.raises(InputError, match="it is truncated or was replaced"):
        session.validate([bad, good])
    assert (good / "validation.json").is_file()


def test_a_missing_package_names_the_command_that_installs_it(
    session: api.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FIXTURES / "without_torch"))
    with pytest.raises(MissingDependency, match="pip install 'edgekit\\[torch\\]'"):
        package.export("linear", framework="torch", target="onnx:float32", root=session.root)


def test_the_most_severe_error_is_raised_when_all_variants_have_ended(
    session: api.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = FIXTURES / "crashing_target"
    monkeypatch.setenv("PYTHONPATH", str(path))
    monkeypatch.syspath_prepend(path)
    events: list[Event] = []
    targets = ("crashing:float16", "crashing:float32", "torchscript:float32")
    with pytest.raises(StepError) as caught:
        package.export("linear", framework="torch", target=targets, root=session.root, on_event=events.append)
    assert type(caught.value) is StepFailed
    assert "Could not translate op Frobnicate" in str(caught.value)
    (note,) = caught.value.__notes__
    assert note.startswith("also failed: export linear/torch crashing:float32: its process crashed with SIGSEGV")
    assert package.load_artifact(session.root / "build/linear/torch/torchscript-float32").verified_path()
    assert [type(event) for event in events if isinstance(event, (FailEvent, FinishEvent))] == [
        FailEvent,
        FailEvent,
        FinishEvent,
    ]
    # In a session, each variant by itself: its workers survive the crash.
    with api.Session(session.root) as other, pytest.raises(StepCrashed) as crash:
        other.export("linear", framework="torch", target="crashing:float32")
    assert crash.value.signal == "SIGSEGV"
    assert crash.value.exit_code not in (0, EXIT_CHECK_FAILED)


def test_samples_may_be_arrays(session: api.Session, exported, tmp_path: Path) -> None:
    (inputs,) = exported[1].golden().inputs.values()
    (artifact,) = session.export(
        exported[1].path, target="onnx:float32", sample=np.repeat(inputs, 3, axis=0), name="again", root=tmp_path
    )
    assert artifact.manifest.model == "again"
    assert artifact.folder.is_relative_to(tmp_path)
    assert not any("random" in note for note in artifact.manifest.notes)


def test_a_session_keeps_its_workers_until_it_is_closed(session: api.Session, exported) -> None:
    with api.Session(session.root) as other:
        other.validate(exported[0])
        with other.context() as context:
            (worker,) = [worker for _, worker in context.pool._idle]
        other.validate(exported[0])
        with other.context() as context:
            assert [idle for _, idle in context.pool._idle] == [worker]
        assert worker.alive
    assert not worker.alive
    with pytest.raises(RuntimeError, match="this session is closed"):
        other.validate(exported[0])


def test_a_session_that_is_not_closed_ends_its_workers_when_it_is_collected(session: api.Session, exported) -> None:
    other = api.Session(session.root)
    other.validate(exported[0])
    with other.context() as context:
        (worker,) = [worker for _, worker in context.pool._idle]
    del other
    assert not worker.alive


def test_a_session_can_be_used_after_a_listener_raised(session: api.Session, exported) -> None:
    def listen(event: Event) -> None:
        if fail:
            raise ZeroDivisionError

    fail = True
    with api.Session(session.root, on_event=listen) as other:
        with pytest.raises(ZeroDivisionError):
            other.bench(exported[0], min_duration_s=0.01, min_runs=5)
        fail = False
        assert other.validate(exported[0])[0].passed


INTERRUPTED = """import sys
import edgekit
edgekit.export("simple_cnn", framework="torch", target="torchscript:float32", root=sys.argv[1])
"""


@pytest.mark.slow
def test_ctrl_c_leaves_no_half_written_file_and_no_process(tmp_path: Path) -> None:
    marker = f"edgekit-api-{os.getpid()}"
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, tmp_path],
        env={**os.environ, "MARKER": marker},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob(".edgekit-*")) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    assert list(tmp_path.rglob(".edgekit-*"))
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode != 0
    assert err.rstrip().splitlines()[-1].startswith("KeyboardInterrupt")
    assert list(tmp_path.rglob(".edgekit-*")) == []
    assert not (tmp_path / "build/simple_cnn/torch/source").exists()
    assert processes_with(marker) == []
