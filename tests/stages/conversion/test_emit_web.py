"""Folders for web pages: what is in them, and the page in a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _helpers.browsers import needs_browser, set_up_packages
from _helpers.support import call

from edgekit.browser.program import arguments, require_chromium
from edgekit.browser.server import PageServer
from edgekit.core.errors import InputError
from edgekit.core.records.artifact import Artifact, load_artifact
from edgekit.core.values.specs import Signature, TensorSpec
from edgekit.stages.context import Context
from edgekit.stages.conversion import emit_web

NAME = 'x": any; } /* */ `${1}` \u2028</script>'


def test_targets_without_a_browser_are_refused_before_the_export(project: Path) -> None:
    answer = call("export", "linear", "--target", "executorch:float32", "--emit", "web", "--root", project)
    assert answer.code == 2
    assert "no artifact for a browser is selected: they run onnx and tflite files" in answer.err


def test_names_are_strings_in_the_declarations_and_never_comments(context: Context) -> None:
    artifact = load_artifact(context.project.artifact_folder("linear", "keras", "onnx-float32"))
    spec = TensorSpec(NAME, ("*/ evil", 2), "float32")
    manifest = replace(artifact.manifest, signature=Signature((spec,), (replace(spec, dtype="int64"),)))
    text = emit_web._declarations(replace(artifact, manifest=manifest))
    assert text.isascii()
    assert f"  /** Nx2 float32 */\n  {json.dumps(NAME)}: Input<Float32Array>;" in text
    assert f"  /** Nx2 int64 */\n  {json.dumps(NAME)}: Tensor<BigInt64Array>;" in text
    assert "evil" not in text


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        (("batch", 8, 6, 3), "NHWC", {"height": 8, "width": 6, "channels": 3, "planar": False}),
        ((1, 1, 8, 6), "NCHW", {"height": 8, "width": 6, "channels": 1, "planar": True}),
        ((1, 8, 6, 5), "NHWC", None),
        ((2, 8, 6, 3), "NHWC", None),
        ((1, 8, 6, 3), None, None),
        ((1, "h", "w", 3), "NHWC", None),
    ],
)
def test_an_image_is_known_by_its_layout(shape: Any, layout: str | None, expected: dict[str, Any] | None) -> None:
    image = emit_web._image(TensorSpec("x", shape, "float32", layout), (0.0, 1.0))
    assert image is None if expected is None else image is not None and expected.items() <= image.items()


def test_a_tensor_quantized_by_one_scale_takes_real_values(context: Context) -> None:
    artifact = load_artifact(context.project.artifact_folder("simple_cnn", "keras", "tflite-int8"))
    tensor = emit_web._tensor(artifact.manifest.signature.inputs[0])
    assert tensor["limits"] == [-128, 127]
    assert tensor["quantization"]["zero_point"] == (-128,)


@pytest.fixture(scope="module")
def folders(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Artifacts in a copy, beside which the folders for web pages are written."""
    set_up_packages()
    root = tmp_path_factory.mktemp("web")
    found = {}
    for model, slug in (("simple_cnn", "onnx-int8"), ("simple_cnn", "tflite-float32"), ("linear", "tflite-float32")):
        folder = root / "build" / model / "keras" / slug
        shutil.copytree(project / "build" / model / "keras" / slug, folder)
        found[f"{model}-{slug}"] = load_artifact(folder)
    return found


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=require_chromium(), args=arguments("none"))
        yield running
        running.close()


@needs_browser
@pytest.mark.slow
class TestInTheBrowser:
    def emit(self, context: Context, artifact: Artifact) -> Path:
        (folder,) = emit_web.emit_beside(context, [artifact])
        assert folder.name == f"{artifact.folder.name}-web"
        return folder

    def open(self, browser: Any, server: PageServer) -> Any:
        page = browser.new_page(viewport={"width": 360, "height": 800})
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(f"{server.url}index.html")
        page.wait_for_selector("#status.good, #status.bad")
        return page

    @pytest.mark.parametrize("name", ["simple_cnn-onnx-int8", "simple_cnn-tflite-float32"])
    def test_a_page_shows_what_the_source_computes(
        self, context: Context, browser: Any, folders: dict[str, Artifact], name: str
    ) -> None:
        artifact = folders[name]
        golden = artifact.golden()
        with PageServer({"": self.emit(context, artifact)}) as server:
            page = self.open(browser, server)
            page.click("#sample")
            page.wait_for_function("() => document.getElementById('status').textContent.startsWith('Sample 2')")
            shown = page.evaluate("() => Array.from(window.lastOutputs.probabilities.data)")
            tolerance = 1e-5 if "float32" in name else 0.2
            np.testing.assert_allclose(shown, golden.outputs["probabilities"][1], atol=tolerance)
            best = str(int(np.argmax(shown)))
            assert page.inner_text(".bars dt.best") == best
            # Draw a stroke: the input is no sample any more.
            box = page.locator("canvas").bounding_box()
            page.click("#clear")
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 20)
            page.mouse.up()
            page.wait_for_function("() => document.getElementById('status').textContent.startsWith('Your input')")
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
            assert page.errors == []
            page.close()

    def test_numbers_can_be_typed_and_bad_ones_are_told(
        self, context: Context, browser: Any, folders: dict[str, Artifact]
    ) -> None:
        artifact = folders["linear-tflite-float32"]
        golden, spec = artifact.golden(), artifact.manifest.signature.inputs[0]
        (output,) = golden.outputs
        with PageServer({"": self.emit(context, artifact)}) as server:
            page = self.open(browser, server)
            count = golden.inputs[spec.name][0].size
            page.fill("textarea", ", ".join(["0.25"] * count))
            page.click("#run")
            page.wait_for_function("() => document.getElementById('status').textContent.startsWith('Your input')")
            assert (
                page.evaluate("name => window.lastOutputs[name].data.length", output) == golden.outputs[output][0].size
            )
            for typed, told in (("1, 2, x", "'x' is no number"), ("1, " * 50, "values do not fit the shape")):
                page.fill("textarea", typed)
                page.click("#run")
                page.wait_for_selector("#status.bad")
                assert told in page.inner_text("#status")
            page.close()

    def test_what_the_library_does_not_take_is_one_sentence(self, context: Context, tmp_path: Path) -> None:
        set_up_packages()
        artifact = load_artifact(context.project.artifact_folder("simple_cnn", "keras", "tflite-int8"))
        runtime = emit_web.web_runtime_of("tflite")
        assert runtime is not None
        with pytest.raises(InputError, match=r"and image is int8; export tflite:dynamic"):
            emit_web.emit_web(context, artifact, runtime)
        assert not artifact.folder.with_name("tflite-int8-web").exists()


# Types that are right, and two mistakes that the compiler has to find.
_USE = """\
import { load, predict } from "./web/model.mjs";
await load({ threads: 2 });
const { probabilities } = await predict({ image: new Float32Array(784) });
export const first: number = probabilities.data[0];
// @ts-expect-error: the model has no such input
await predict({ picture: new Float32Array(784) });
// @ts-expect-error: the model has no such output
(await predict({ image: [1, 2] })).labels;
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm here: apt-get install npm")
def test_typescript_finds_the_declarations_beside_the_module(context: Context, tmp_path: Path) -> None:
    """A compiler looks for the types of `model.mjs` in `model.d.mts`, and nowhere else."""
    artifact = load_artifact(context.project.artifact_folder("simple_cnn", "keras", "onnx-float32"))
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "model.mjs").write_text("")
    (tmp_path / "web" / emit_web.DECLARATIONS).write_text(emit_web._declarations(artifact))
    (tmp_path / "use.mts").write_text(_USE)
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "typescript@5.9.3"]
    subprocess.run(npm, cwd=tmp_path, check=True, timeout=300)
    compiler = [tmp_path / "node_modules/.bin/tsc", "--noEmit", "--strict", "--target", "es2022"]
    answer = subprocess.run(
        [*compiler, "--module", "nodenext", "use.mts"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert (answer.returncode, answer.stdout) == (0, "")
