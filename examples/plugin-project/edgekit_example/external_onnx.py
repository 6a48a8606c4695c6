"""The target `onnx-external`: ONNX with the weights in a file beside the graph."""

from __future__ import annotations

from pathlib import Path

from edgekit.contracts.target import ConversionRequest, ConversionResult, Target, malformed_file_error
from edgekit.core.environment.requirements import Requirement
from edgekit.core.records.source import LoadedSource
from edgekit.core.values.specs import ModelDescription, OpCount, Signature, TensorSpec

ONNX = Requirement("onnx", "onnx", adds="the target onnx-external")

_WEIGHTS_FILE = "model.weights"


class ExternalOnnx(Target):
    """Saves an ONNX model as two files. Keras and PyTorch models reach it through edgekit's own ONNX target."""

    name = "onnx-external"
    title = "ONNX with external data"
    suffixes = (".onnxe",)
    runtime = "onnx-reference"
    routes = {"onnx": ("float32",)}
    requires = {"onnx": (ONNX,)}
    reads_with = (ONNX,)
    symbolic = True

    def _convert(self, source: LoadedSource, job: ConversionRequest) -> ConversionResult:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(source.model)  # saving moves the weights out of the model that it is given
        # Only raw data is stored externally; values in typed fields are converted.
        for tensor in model.graph.initializer:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
        onnx.save_model(
            model,
            str(job.folder / self.file_name),
            save_as_external_data=True,
            location=_WEIGHTS_FILE,
            size_threshold=0,
        )
        extra = (_WEIGHTS_FILE,) if (job.folder / _WEIGHTS_FILE).exists() else ()
        return ConversionResult(self.file_name, source.signature, {"weights_file": _WEIGHTS_FILE}, extra_files=extra)

    def describe(self, path: Path) -> ModelDescription:
        import onnx
        from google.protobuf.message import DecodeError

        try:
            model = onnx.load(str(path), load_external_data=False)
        except (DecodeError, OSError) as error:
            raise malformed_file_error(path, "onnx-external", str(error).partition("\n")[0]) from None
        if not model.graph.node:
            raise malformed_file_error(path, "onnx-external", "it contains no graph")
        counts: dict[str, int] = {}
        for node in model.graph.node:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
        sizes = [_elements(tensor) for tensor in model.graph.initializer]
        return ModelDescription(
            format=self.title,
            signature=Signature(tuple(map(_spec, model.graph.input)), tuple(map(_spec, model.graph.output))),
            ops=tuple(OpCount(name, count) for name, count in counts.items()),
            tensors=len(model.graph.initializer),
            parameters=sum(sizes),
            weight_bytes=sum(
                size * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
                for size, tensor in zip(sizes, model.graph.initializer, strict=True)
            ),
            macs=None,
            activation_bytes=None,
            quantized_tensors=0,
        )


def _elements(tensor: object) -> int:
    elements = 1
    for dim in tensor.dims:  # type: ignore[attr-defined]
        elements *= dim
    return elements


def _spec(value: object) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type  # type: ignore[attr-defined]
    shape = tuple(dim.dim_param or int(dim.dim_value) for dim in tensor.shape.dim)
    return TensorSpec(value.name, shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name)  # type: ignore[attr-defined]


TARGET = ExternalOnnx()
