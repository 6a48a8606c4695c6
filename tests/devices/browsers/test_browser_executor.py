"""Models in a real headless browser: outputs, figures, what the runtimes refuse, and faults of the browser."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from _helpers.browsers import needs_browser, set_up_packages
from _helpers.support import call, processes_with
from onnx import TensorProto, helper

from edgekit.browser import page as pages
from edgekit.browser.page import PageSettings, is_out_of_memory
from edgekit.contracts.executor import EXECUTORS, BenchRequest, ExecutionSession, InferRequest, ModelFiles, Place
from edgekit.contracts.runtime import RUNTIMES
from edgekit.core.environment.project import open_project
from edgekit.core.errors import InputError, StepCrashed, StepOutOfMemory, StepTimedOut
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.records.measurement import load_measurement
from edgekit.core.records.validation import load_validation
from edgekit.core.values.specs import Signature, TensorSpec, Variant
from edgekit.devices.boards.places import find_place
from edgekit.devices.browsers.names import web_runtime
from edgekit.stages.context import Context
from edgekit.workers.pool import WorkerPool

BROWSER = EXECUTORS.load("browser")


def test_each_target_of_the_web_has_its_runtime_and_no_other_runtime_stands_in() -> None:
    assert [web_runtime(name) for name in ("onnxruntime", "litert")] == ["onnxruntime-web", "litert-js"]
    assert web_runtime("litert-js") == "litert-js"
    assert [web_runtime(name) for name in ("torchscript", "tflite-micro")] == ["", ""]


def test_other_devices_are_none_of_its_own() -> None:
    assert "the browsers are chromium, chromium-webgpu" in BROWSER.refusal("onnxruntime", Place("host"))
    assert BROWSER.refusal("torchscript", Place("chromium")) == "no runtime of a browser stands for torchscript"
    assert EXECUTORS.load("ssh").refusal("litert-js", Place("chromium"))


def test_a_message_about_memory_is_told_from_others() -> None:
    assert is_out_of_memory("Aborted(OOM)")
    assert is_out_of_memory("RangeError: Array buffer allocation failed")
    assert not is_out_of_memory("no memory_layout in the model")


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_types_that_litert_js_lacks_are_one_sentence_with_the_way_out(dtype: str) -> None:
    signature = Signature((TensorSpec("x", (1, 4), dtype),), (TensorSpec("y", (1, 4), "float32"),))
    with pytest.raises(InputError, match=rf"and x is {dtype}; export tflite:dynamic .*, or onnx:int8 for"):
        RUNTIMES.load("litert-js").open(Path(os.devnull), threads=1, signature=signature)


def test_a_browser_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    answer = call("devices", "setup", "chromium", "--root", project)
    assert answer.code == 3
    assert "install it with: apt-get install chromium (or name another one in EDGEKIT_CHROMIUM)" in answer.err
    monkeypatch.setenv("EDGEKIT_CHROMIUM", "/nonexistent/chrome")
    answer = call("devices", "setup", "chromium", "--root", project)
    assert answer.code == 3
    assert "EDGEKIT_CHROMIUM names /nonexistent/chrome, which is not a program" in answer.err


def test_a_browser_is_listed_and_shown_without_being_started(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_CHROMIUM", "/bin/true")
    listed = call("devices", "--json", "--root", project).data["browsers"]
    assert [(entry["name"], entry["computes_with"]) for entry in listed] == [
        ("chromium", "WASM"),
        ("chromium-webgpu", "WebGPU"),
    ]
    shown = call("devices", "show", "chromium-webgpu", "--json", "--root", project).data
    assert (shown["computes_with"], shown["program"]) == ("WebGPU", "/bin/true")


def test_a_runtime_of_the_browser_is_not_timed_elsewhere(project: Path) -> None:
    answer = call("bench", "linear", "--target", "onnx", "--runtime", "onnxruntime-web", "--root", project)
    assert answer.code == 2
    assert "can only be timed there; use the device chromium" in answer.err


@pytest.mark.parametrize("name", ["chromium", "chromium-webgpu"])
def test_the_name_of_a_browser_is_taken(tmp_path: Path, name: str) -> None:
    answer = call("devices", "add", name, "--ssh", "pi@host", "--root", tmp_path)
    assert answer.code == 2
    assert f"'{name}' cannot be a board's name" in answer.err
    (tmp_path / "device_profiles").mkdir()
    (tmp_path / "device_profiles" / f"{name}.toml").write_text("")
    with pytest.raises(InputError, match=f"^{name} is a browser, and the name of .*; rename that file$"):
        find_place(open_project(tmp_path), name)


@pytest.fixture
def packages() -> None:
    set_up_packages()


def small_model(path: Path, nodes: list[onnx.NodeProto], shape: tuple[int, ...] = (4,)) -> Signature:
    """An ONNX file from x to y, float32."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y"))
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), ir_version=8)
    model.opset_import[0].version = 17
    path.write_bytes(model.SerializeToString())
    return Signature((TensorSpec("x", shape, "float32"),), (TensorSpec("y", shape, "float32"),))


def files(path: Path, signature: Signature, samples: Path) -> ModelFiles:
    return ModelFiles("small", "onnx", "float32", "onnxruntime", path, (path,), signature, samples)


@needs_browser
@pytest.mark.slow
@pytest.mark.usefixtures("packages")
class TestInTheBrowser:
    def artifact(self, context: Context, variant: str, tmp_path: Path) -> Artifact:
        import shutil

        folder = context.project.artifact_folder("simple_cnn", "keras", Variant.parse(variant).slug)
        return load_artifact(Path(shutil.copytree(folder, tmp_path / "build" / folder.name)))

    def test_commands_report_outputs_times_and_transfer(self, context: Context, project: Path, tmp_path: Path) -> None:
        """Both formats in one command each: the runtimes, the tier, and the sizes are in the records."""
        import shutil

        root = tmp_path / "project"
        for slug in ("onnx-int8", "tflite-float32", "source"):
            folder = project / "build" / "simple_cnn" / "keras" / slug
            shutil.copytree(folder, root / "build" / "simple_cnn" / "keras" / slug)
        answer = call("validate", "--device", "chromium", "--root", root)
        assert answer.code == 0, answer.err
        quick = ("--min-duration", 0, "--min-runs", 5)
        answer = call("bench", "--device", "chromium", *quick, "--root", root)
        assert answer.code == 0, answer.err
        assert "browser p90" in answer.out
        for slug, runtime in (("onnx-int8", "onnxruntime-web"), ("tflite-float32", "litert-js")):
            folder = root / "build" / "simple_cnn" / "keras" / slug
            validation = load_validation(folder / "validation-chromium-browser.json")
            assert (validation.runtime, validation.executor) == (runtime, "browser")
            assert validation.passed
            assert len(validation.against_host) == 1
            measurement = load_measurement(folder / "bench-chromium.json")
            assert measurement.runtime == load_artifact(folder).manifest.runtime
            execution = measurement.execution("device")
            assert execution is not None
            assert execution.wall is not None
            assert execution.browser is not None
            figures = execution.browser
            assert (figures.runtime, figures.backend, figures.adapter) == (runtime, "wasm", None)
            assert execution.wall.count >= 5
            assert execution.low_ms is not None
            assert execution.low_ms <= execution.latency_ms == measurement.latency_ms["device"]
            assert figures.model_transfer.raw_bytes == (folder / load_artifact(folder).manifest.file).stat().st_size
            sizes = figures.transfer
            assert 5_000_000 < sizes.brotli_bytes + 3_000_000 < sizes.gzip_bytes + 3_000_000 < sizes.raw_bytes
            assert [run.threads for run in figures.threaded] == [min(4, len(os.sched_getaffinity(0)))]

    def test_webgpu_computes_the_same_where_there_is_an_adapter(self, context: Context, tmp_path: Path) -> None:
        """The browser's software adapter where there is no other, which the notes say."""
        artifact = self.artifact(context, "tflite:float32", tmp_path)
        session, place = ExecutionSession("webgpu", context.pool), Place("chromium-webgpu")
        model, golden = ModelFiles.of(artifact), artifact.golden()
        inputs = {name: array[:2] for name, array in golden.inputs.items()}
        outputs = BROWSER.infer(session, model, place, InferRequest(inputs)).outputs
        for name, expected in golden.outputs.items():
            np.testing.assert_allclose(outputs[name], expected[:2], atol=1e-3)

    def test_names_of_tensors_are_data(self, pool: WorkerPool, tmp_path: Path) -> None:
        path, name = tmp_path / "model.onnx", '</script><img src=x onerror="window.hit=1">\u2028"'
        x, y = (helper.make_tensor_value_info(text, TensorProto.FLOAT, [2]) for text in (name, "constructor"))
        node = helper.make_node("Neg", [name], ["constructor"])
        model = helper.make_model(helper.make_graph([node], "g", [x], [y]), ir_version=8)
        model.opset_import[0].version = 17
        path.write_bytes(model.SerializeToString())
        signature = Signature((TensorSpec(name, (2,), "float32"),), (TensorSpec("constructor", (2,), "float32"),))
        session = ExecutionSession("names", pool)
        request = InferRequest({name: np.array([1.0, -2.0], np.float32)})
        outputs = BROWSER.infer(session, files(path, signature, path), Place("chromium"), request).outputs
        np.testing.assert_array_equal(outputs["constructor"], [-1.0, 2.0])

    def test_an_operator_or_a_file_that_the_library_lacks_is_one_sentence(
        self, pool: WorkerPool, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.onnx"
        signature = small_model(path, [helper.make_node("Unheard", ["x"], ["y"], domain="example")])
        request = InferRequest({"x": np.zeros(4, np.float32)})
        for content in (path.read_bytes(), path.read_bytes()[:20], b""):
            path.write_bytes(content)
            with pytest.raises(InputError, match="ONNX Runtime Web cannot load this file") as caught:
                BROWSER.infer(ExecutionSession("bad", pool), files(path, signature, path), Place("chromium"), request)
            assert len(str(caught.value).splitlines()) == 1

    def test_a_page_out_of_memory_is_one_error_and_the_next_page_works(self, tmp_path: Path) -> None:
        """A tensor of a little less than 4 GiB, which is all that WebAssembly addresses; none of it is ever touched."""
        path = tmp_path / "model.onnx"
        shape = helper.make_node("Constant", [], ["shape"], value_ints=[1 << 16, (1 << 14) - 1])
        expand = helper.make_node("Expand", ["x", "shape"], ["big"])
        total = helper.make_node("ReduceSum", ["big"], ["y"], keepdims=0)
        signature = small_model(path, [shape, expand, total], ())
        runtime = RUNTIMES.load("onnxruntime-web")
        try:
            with pytest.raises(StepOutOfMemory, match="the page ran out of memory"):
                runtime.open(path, threads=1, signature=signature).infer({"x": np.ones(1, np.float32)})
            signature = small_model(path, [helper.make_node("Neg", ["x"], ["y"])], ())
            outputs = runtime.open(path, threads=1, signature=signature).infer({"x": np.ones(1, np.float32)})
            assert outputs["y"].tolist() == [-1.0]
        finally:
            pages.close_browser()

    def test_a_browser_that_is_killed_is_one_error_and_the_next_one_works(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        signature = small_model(path, [helper.make_node("Neg", ["x"], ["y"])])
        runtime, inputs = RUNTIMES.load("onnxruntime-web"), {"x": np.ones(4, np.float32)}
        try:
            session = runtime.open(path, threads=1, signature=signature)
            own = [
                pid for pid in children(os.getpid()) if b"--headless" in command(pid) and b"--type=" not in command(pid)
            ]
            assert own
            for pid in own:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(StepCrashed, match=r"^the browser ended before it answered$"):
                session.infer(inputs)
            assert runtime.open(path, threads=1, signature=signature).infer(inputs)["y"].tolist() == [-1.0] * 4
        finally:
            pages.close_browser()

    def test_what_the_libraries_lack_is_still_lacking(self, tmp_path: Path) -> None:
        """When one of these fails, `docs/upstream.md` and the runtime's refusal have to change."""
        path = tmp_path / "model.onnx"
        x, y = (helper.make_tensor_value_info(text, TensorProto.FLOAT, [2]) for text in ("x", "__proto__"))
        graph = helper.make_graph([helper.make_node("Neg", ["x"], ["__proto__"])], "g", [x], [y])
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        path.write_bytes(model.SerializeToString())
        signature = Signature((TensorSpec("x", (2,), "float32"),), (TensorSpec("__proto__", (2,), "float32"),))
        try:
            session = RUNTIMES.load("onnxruntime-web").open(path, threads=1, signature=signature)
            with pytest.raises(InputError, match="At least one output should be requested"):
                session.infer({"x": np.ones(2, np.float32)})
            page = pages.page_of(PageSettings("litert-js"))
            take = """async (url) => {
                const { Tensor } = await import(url);
                try { new Tensor(new Int8Array(4), [4]); return 'taken'; } catch (error) { return error.message; }
            }"""
            refusal = page._page.evaluate(take, f"{page._server.url}packages/litert-js/index.js")
            assert refusal == "Typed array Int8Array is not supported."
        finally:
            pages.close_browser()

    def test_a_run_validates_and_benches_in_the_browser_and_repeats_nothing(self, tmp_path: Path) -> None:
        small_model(tmp_path / "tiny.onnx", [helper.make_node("Neg", ["x"], ["y"])], (1, 4))
        np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32))
        (tmp_path / "edgekit.toml").write_text(
            'variants = ["onnx:float32"]\nvalidate_on = ["chromium"]\n[[models]]\nname = "tiny"\npath = "tiny.onnx"\n'
            'sample = "s.npz"\n[bench]\ndevices = ["chromium"]\nmin_duration_s = 0.0\nmin_runs = 3\n[[budgets]]\n'
            'model = "*"\nlatency_ms = { device = 5000 }\n[[reports]]\nformat = "markdown"\npath = "r.md"\n'
        )
        answer = call("run", "--root", tmp_path)
        assert answer.code == 0, answer.err
        report = (tmp_path / "r.md").read_text()
        assert "| browser p90 |" in report
        assert "device: measured on Chromium" in report
        assert "nothing to do" in call("run", "--root", tmp_path).out

    def test_a_page_that_crashes_is_one_error(self) -> None:
        try:
            page = pages.page_of(PageSettings("onnxruntime-web"))
            with pytest.raises(StepCrashed, match="the browser's page crashed"):
                page._failure("Page.evaluate: Target crashed")
                raise page._failure("Page.evaluate: Target crashed")
            assert pages.page_of(PageSettings("onnxruntime-web")) is not page
        finally:
            pages.close_browser()

    def test_a_run_out_of_time_leaves_no_process(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path, marker = tmp_path / "model.onnx", f"edgekit-browser-test-{os.getpid()}"
        monkeypatch.setenv("EDGEKIT_TEST_MARKER", marker)
        signature = small_model(path, [helper.make_node("Neg", ["x"], ["y"])])
        np.savez(tmp_path / "samples.npz", **{"input/x": np.ones(4, np.float32)})
        model = files(path, dataclasses.replace(signature), tmp_path / "samples.npz")
        request = BenchRequest(min_duration_s=600.0, timeout_s=6.0)
        with (
            WorkerPool() as pool,
            BROWSER.prepare(ExecutionSession("long", pool), model, Place("chromium"), request) as prepared,
            pytest.raises(StepTimedOut, match="no answer after 6 s"),
        ):
            prepared.run()
        deadline = time.monotonic() + 20
        while (left := processes_with(marker)) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not [command(pid) for pid in left]


def children(pid: int) -> list[int]:
    """The processes that descend from one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(re.search(r"PPid:\s*(\d+)", (entry / "status").read_text())[1])
            except (OSError, TypeError):
                continue
            if parent == pid:
                found += [int(entry.name), *children(int(entry.name))]
    return found


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
