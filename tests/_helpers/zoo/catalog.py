"""The zoo's sources: networks as other people write and save them.

A source is prepared in a process of its own: `python -m _helpers.zoo.catalog NAME FOLDER` writes its files into a
folder, with the arguments of `edgekit.export`, samples, and inputs that edgekit never sees with the outputs of the
framework itself.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from _helpers.zoo.transformers_models import ARCHITECTURES

Array = np.ndarray
HERE = Path(__file__).parent
SAMPLES, HELD = 64, 4

# One of each family, at an edge of pixels that its pooling bears.
_FIRST_APPLICATIONS = {
    "MobileNet": 64, "MobileNetV2": 64, "MobileNetV3Small": 64, "EfficientNetB0": 64, "EfficientNetV2B0": 64,
    "DenseNet121": 64, "NASNetMobile": 64, "ResNet50": 64, "ResNet50V2": 64, "Xception": 96, "InceptionV3": 96,
    "ConvNeXtTiny": 64, "VGG16": 64, "InceptionResNetV2": 96,
}  # fmt: skip
_OTHER_APPLICATIONS = {
    "MobileNetV3Large": 64, "EfficientNetB1": 64, "EfficientNetB2": 64, "EfficientNetB3": 64, "EfficientNetB4": 64,
    "EfficientNetB5": 64, "EfficientNetB6": 64, "EfficientNetB7": 64, "EfficientNetV2B1": 64, "EfficientNetV2B2": 64,
    "EfficientNetV2B3": 64, "EfficientNetV2S": 64, "EfficientNetV2M": 64, "EfficientNetV2L": 64, "DenseNet169": 64,
    "DenseNet201": 64, "NASNetLarge": 96, "ResNet101": 64, "ResNet152": 64, "ResNet101V2": 64, "ResNet152V2": 64,
    "ConvNeXtSmall": 64, "ConvNeXtBase": 64, "ConvNeXtLarge": 64, "ConvNeXtXLarge": 64, "VGG19": 64,
}  # fmt: skip
# Architectures that are also built at their published size.
_FULL = ("bert", "distilbert", "mobilebert", "gpt2", "t5_encoder", "vit", "swin", "convnext", "whisper_encoder")
# A tutorial's network in each form in which it is saved.
_KERAS_FORMS = ("keras", "h5", "saved_model", "export", "onnx", "tf_module")
_TORCH_FORMS = (
    "pt2", "pt2_dynamic", "traced", "scripted", "state_dict", "safetensors", "lightning", "onnx", "onnx_legacy",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A network of the zoo.

    Attributes:
        name: Its name.
        family: What it belongs to, for the table.
        prepare: Writes its files into a folder.
        default: Whether it is run without `ALL=1`.
    """

    name: str
    family: str
    prepare: Callable[[Path], None]
    default: bool = True


def sources() -> dict[str, Source]:
    """Return the sources by name, the quick ones first."""
    found = [Source(name, "PyTorch networks", partial(_torch_code, name)) for name in _functions("torch_networks")]
    found += [Source(name, "Keras networks", partial(_keras_network, name)) for name in _functions("keras_networks")]
    found += [Source(f"mnist_{form}", "saved forms", partial(_keras_form, form)) for form in _KERAS_FORMS]
    found += [Source(f"lenet_{form}", "saved forms", partial(_torch_form, form)) for form in _TORCH_FORMS]
    found += [Source(name, "transformers", partial(_transformers, name, False)) for name in ARCHITECTURES]
    for applications, default in ((_FIRST_APPLICATIONS, True), (_OTHER_APPLICATIONS, False)):
        found += [
            Source(name, "keras.applications", partial(_application, name, size), default)
            for name, size in applications.items()
        ]
    found += [Source(f"{name}_full", "transformers", partial(_transformers, name, True), False) for name in _FULL]
    return {source.name: source for source in found}


def _functions(module: str) -> Iterator[str]:
    """Yield the networks of a module in order, without importing its framework."""
    for node in ast.parse((HERE / f"{module}.py").read_text()).body:
        decorators = getattr(node, "decorator_list", [])
        if isinstance(node, ast.FunctionDef) and decorators and getattr(decorators[0].func, "id", "") == "_network":
            yield node.name


def _numbers(rng: np.random.Generator, kind: str, *shape: int, count: int) -> Array:
    """Return `count` random inputs of a kind."""
    size = (count, *shape)
    if kind == "pixels":
        return rng.random(size, dtype=np.float32)
    if kind in ("ids", "ids_with_end", "small_ids", "padded_ids"):
        ids = rng.integers(3, 50 if kind == "small_ids" else 90, size)
        if kind == "padded_ids":
            ids[_mask(count, shape[0]) == 0] = 0
        if kind == "ids_with_end":
            ids[:, -1] = 99
        return ids
    if kind == "mask":
        return _mask(count, shape[0])
    if kind == "full_mask":
        return np.ones(size, np.int64)
    if kind == "types":
        return np.broadcast_to((np.arange(shape[0]) > shape[0] // 2).astype(np.int64), size).copy()
    if kind == "edges":
        return rng.integers(0, 9, size)
    if kind.startswith("adjacency"):
        edges = (rng.random(size) < 0.3).astype(np.float32)
        edges = np.maximum(edges, edges.transpose(0, 2, 1))
        edges[:, np.arange(shape[0]), np.arange(shape[0])] = float(kind.endswith("loops"))
        return edges
    return rng.standard_normal(size, dtype=np.float32)


def _mask(count: int, length: int) -> Array:
    """Return masks of texts whose ends are padding, of different lengths."""
    lengths = length - np.arange(count) % 6
    return (np.arange(length)[None] < lengths[:, None]).astype(np.int64)


def write(
    folder: Path,
    model: str,
    kinds: Mapping[str, tuple[Any, ...]],
    run: Callable[[dict[str, Array]], list[Array]],
    dtypes: Mapping[str, str] | None = None,
    **options: Any,
) -> None:
    """Write the samples, the held inputs with the framework's outputs one sample at a time, and the arguments."""
    rng = np.random.default_rng(0)

    def drawn(count: int) -> dict[str, Array]:
        arrays = {name: _numbers(rng, *described, count=count) for name, described in kinds.items()}
        return {name: array.astype((dtypes or {}).get(name, array.dtype)) for name, array in arrays.items()}

    np.savez(folder / "sample.npz", **drawn(SAMPLES))
    held = drawn(HELD)
    answers = [run({name: array[index : index + 1] for name, array in held.items()}) for index in range(HELD)]
    np.savez(
        folder / "held.npz",
        **{f"in.{name}": array for name, array in held.items()},
        **{f"out.{index:03d}": np.stack(arrays) for index, arrays in enumerate(zip(*answers, strict=True))},
    )
    (folder / "arguments.json").write_text(json.dumps({"model": model, "sample": "sample.npz", **options}))


def _declared(inputs: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """Return the declarations of inputs of PyTorch code."""
    declared = []
    for name, (kind, *shape) in inputs.items():
        integer = "ids" in kind or "mask" in kind or kind in ("types", "edges")
        declared.append(f"{name}:{'x'.join(['N', *map(str, shape)])}:{'int64' if integer else 'float32'}")
    return declared


def _leaves(value: Any) -> list[Array]:
    """Return the tensors in what a network returns, as arrays, in order; caches of keys and values are left out."""
    if value is None or type(value).__name__.endswith("Cache"):
        return []
    if isinstance(value, Mapping):
        return [leaf for part in value.values() for leaf in _leaves(part)]
    if isinstance(value, (tuple, list)):
        return [leaf for part in value for leaf in _leaves(part)]
    return [np.asarray(value.detach() if hasattr(value, "detach") else value)]


def _torch_run(model: Any, by_name: bool = False) -> Callable[[dict[str, Array]], list[Array]]:
    import torch

    def run(arrays: dict[str, Array]) -> list[Array]:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        with torch.no_grad():
            return _leaves(model(**tensors) if by_name else model(*tensors.values()))

    return run


def _keras_run(model: Any) -> Callable[[dict[str, Array]], list[Array]]:
    def run(arrays: dict[str, Array]) -> list[Array]:
        values = list(arrays.values())
        return _leaves(model(values if len(values) > 1 else values[0], training=False))

    return run


def _torch_code(name: str, folder: Path) -> None:
    from _helpers.zoo import torch_networks

    inputs = torch_networks.INPUTS[name]
    (folder / "networks.py").write_text((HERE / "torch_networks.py").read_text())
    run = _torch_run(getattr(torch_networks, name)())
    write(folder, f"networks.py:{name}", inputs, run, inputs=_declared(inputs))


def _transformers(name: str, full: bool, folder: Path) -> None:
    from _helpers.zoo import transformers_models

    architecture = ARCHITECTURES[name]
    inputs = {**architecture.inputs, **(architecture.full if full else {})}
    function = f"{name}_full" if full else name
    (folder / "networks.py").write_text((HERE / "transformers_models.py").read_text())
    run = _torch_run(getattr(transformers_models, function)(), by_name=True)
    write(folder, f"networks.py:{function}", inputs, run, inputs=_declared(inputs))


def _keras_network(name: str, folder: Path) -> None:
    from _helpers.zoo import keras_networks

    model = getattr(keras_networks, name)()
    inputs = {
        spec.name: described for spec, described in zip(model.inputs, keras_networks.INPUTS[name].values(), strict=True)
    }
    if name == "keras_vit":  # has a layer of its own
        (folder / "networks.py").write_text((HERE / "keras_networks.py").read_text())
        file = f"networks.py:{name}"
    else:
        model.save(folder / "model.keras")
        file = "model.keras"
    write(folder, file, inputs, _keras_run(model), {"ids": "int32"})


def _application(name: str, size: int, folder: Path) -> None:
    from _helpers.zoo import keras_networks

    model = keras_networks.application(name, size, full=False)
    model.save(folder / "model.keras")
    # Most of them scale pixels themselves, or leave it to the user.
    inputs = {model.inputs[0].name: ("pixels", *model.input_shape[1:])}
    write(folder, "model.keras", inputs, _keras_run(model))


def _keras_form(form: str, folder: Path) -> None:
    import tensorflow as tf

    from _helpers.zoo import keras_networks

    model = keras_networks.mnist()
    spec = tf.TensorSpec((None, 28, 28, 1), tf.float32, name="image")
    name = model.inputs[0].name
    if form in ("keras", "h5"):
        model.save(folder / f"model.{form}")
    elif form == "saved_model":
        tf.saved_model.save(model, str(folder / "model"))
    elif form == "export":
        model.export(folder / "model", verbose=False)
    elif form == "onnx":
        import tf2onnx

        function = tf.function(lambda image: model(image, training=False), input_signature=[spec])
        tf2onnx.convert.from_function(function, [spec], output_path=str(folder / "model.onnx"))
        name = "image"
    else:
        module = tf.Module()
        module.model = model
        module.serve = tf.function(lambda image: {"scores": model(image, training=False)}, input_signature=[spec])
        tf.saved_model.save(module, str(folder / "model"), signatures=module.serve)
        name = "image"
    file = {"keras": "model.keras", "h5": "model.h5", "onnx": "model.onnx"}.get(form, "model")
    write(folder, file, {name: ("pixels", 28, 28, 1)}, _keras_run(model))


def _torch_form(form: str, folder: Path) -> None:
    import torch

    from _helpers.zoo import torch_networks

    model = torch_networks.lenet()
    inputs = torch_networks.INPUTS["lenet"]
    example = (torch.randn(2, 3, 32, 32),)
    file, options = "model.pt", {}
    if form.startswith("pt2"):
        dynamic = ({0: torch.export.Dim("batch")},) if form == "pt2_dynamic" else None
        inside = example if dynamic else (example[0][:1],)
        torch.export.save(torch.export.export(model, inside, dynamic_shapes=dynamic), folder / "model.pt2")
        file = "model.pt2"
    elif form in ("traced", "scripted"):
        compiled = torch.jit.trace(model, example) if form == "traced" else torch.jit.script(model)
        compiled.save(folder / "model.pt")
        options = {"inputs": _declared(inputs)}
    elif form.startswith("onnx"):
        new = form == "onnx"
        exporting = {"dynamo": True, "dynamic_shapes": ({0: "batch"},)} if new else {"dynamo": False}
        inside = example if new else (example[0][:1],)
        torch.onnx.export(model, inside, str(folder / "model.onnx"), input_names=["x"], **exporting)
        file = "model.onnx"
    else:
        (folder / "networks.py").write_text((HERE / "torch_networks.py").read_text())
        file, weights = "networks.py:lenet", _save_weights(form, model.state_dict(), folder)
        options = {"inputs": _declared(inputs), "weights": weights}
    write(folder, file, inputs, _torch_run(model), **options)


def _save_weights(form: str, state: dict[str, Any], folder: Path) -> str:
    """Save a state dict in one of its forms; return the name of the file."""
    import torch

    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(state, folder / "weights.safetensors")
        return "weights.safetensors"
    if form == "state_dict":
        torch.save(state, folder / "weights.pt")
        return "weights.pt"
    renamed = {f"model.{key}": value for key, value in state.items()}
    torch.save({"state_dict": renamed, "epoch": 3, "hyper_parameters": {"lr": 0.1}}, folder / "weights.ckpt")
    return "weights.ckpt"


if __name__ == "__main__":
    sources()[sys.argv[1]].prepare(Path(sys.argv[2]))
