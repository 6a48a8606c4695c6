"""LiteRT.js: LiteRT with XNNPACK as WebAssembly, in a page of a headless browser."""

from __future__ import annotations

from edgekit.browser.runtime import BrowserRuntime


class LiteRTJs(BrowserRuntime):
    """Runs .tflite files in a browser, without those whose inputs or outputs are int8 or int16."""

    name = "litert-js"
    title = "LiteRT.js"
    targets = ("tflite",)
    dtypes = ("float32", "int32", "uint8")
    instead = "export tflite:dynamic (int8 weights, float32 inputs), or onnx:int8 for ONNX Runtime Web"


RUNTIME = LiteRTJs()
