"""ONNX Runtime Web: ONNX Runtime as WebAssembly, in a page of a headless browser."""

from __future__ import annotations

from edgekit.browser.runtime import BrowserRuntime


class OnnxRuntimeWeb(BrowserRuntime):
    """Runs .onnx files in a browser."""

    name = "onnxruntime-web"
    title = "ONNX Runtime Web"
    targets = ("onnx",)


RUNTIME = OnnxRuntimeWeb()
