"""What accelerators and runtimes for edge devices take: one row holds the rules of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekit.core.errors import unknown_name

# `vela --supported-ops-report` of ethos-u-vela 5.2.0: operators that Ethos-U55, U65 and U85 all run.
_ETHOS_U_OPERATORS = """
ABS ADD ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D DEPTHWISE_CONV_2D ELU EXP EXPAND_DIMS
FULLY_CONNECTED GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG PACK PAD
PADV2 PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RSQRT SLICE SOFTMAX SPLIT SPLIT_V SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM
TANH TILE TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK
"""
# `onnxruntime/tools/mobile_helpers/nnapi_supported_ops.md` of ONNX Runtime 1.32, which its
# `check_onnx_model_mobile_usability` reads: operators that the NNAPI execution provider takes. The CPU runs the others.
_NNAPI_OPERATORS = """
Abs Add AveragePool BatchNormalization Cast Clip Concat Conv DepthToSpace DequantizeLinear Div Elu Exp Flatten Floor
Gather Gemm GlobalAveragePool GlobalMaxPool Identity LeakyRelu Log LRN MatMul MaxPool Max Min Mul Neg Pad Pow PRelu
QLinearConv QLinearMatMul QuantizeLinear ReduceMean Relu Reshape Resize Sigmoid Sin Slice Softmax Split Sqrt Squeeze
Sub Tanh Transpose Unsqueeze QLinearAdd QLinearAveragePool QLinearSigmoid
"""


@dataclass(frozen=True)
class DeploymentPreset:
    """The rules of what a file is made for.

    Attributes:
        name: Name on the command line: lower-case letters, digits and hyphens.
        title: Name for people.
        precisions: The precisions that it runs, by target; an empty tuple stands for all.
        source: Where the rules are from.
        input_type: Required type of floating-point inputs; None for the target's own.
        output_type: Required type of floating-point outputs.
        per_tensor: Whether weights need one scale for each tensor.
        operators: The operators that run there; empty for all operators of the format.
        tensor_types: The types that inputs and outputs may have; empty for all.
        fixed_shapes: Whether all dimensions have to be numbers.
        otherwise: What happens to other operators, as a clause.
    """

    name: str
    title: str
    precisions: Mapping[str, tuple[str, ...]]
    source: str
    input_type: str | None = None
    output_type: str | None = None
    per_tensor: bool = False
    operators: frozenset[str] = field(default_factory=frozenset)
    tensor_types: tuple[str, ...] = ()
    fixed_shapes: bool = False
    otherwise: str = ""

    def runs(self, target: str, precision: str) -> bool:
        """Return whether it runs files of a target at a precision."""
        return target in self.precisions and precision in (self.precisions[target] or (precision,))

    @property
    def variants(self) -> tuple[str, ...]:
        """What it runs, as variants, or targets with all of their precisions."""
        return tuple(
            variant
            for target, names in self.precisions.items()
            for variant in ([f"{target}:{name}" for name in names] or [target])
        )


_ETHOS_U = DeploymentPreset(
    "ethos-u",
    "Arm Ethos-U",
    {"tflite": ("int8", "int16x8")},
    source="the report of supported operators that ethos-u-vela 5.2.0 writes",
    operators=frozenset(_ETHOS_U_OPERATORS.split()),
    # Float ends would need QUANTIZE and DEQUANTIZE from and to float, which the NPU has no form of.
    tensor_types=("int8", "uint8", "int16", "int32"),
    fixed_shapes=True,
    otherwise="the processor beside it runs them",
)
_LITERT_JS = DeploymentPreset(
    "litert-js",
    "LiteRT.js",
    {"tflite": ()},
    source="the tensor types that @litertjs/core 2.5.3 accepts: float32 and int32; others end in an error",
    input_type="float32",
    output_type="float32",
    tensor_types=("float32", "int32"),
    fixed_shapes=True,
)
_ONNXRUNTIME_MOBILE = DeploymentPreset(
    "onnxruntime-mobile",
    "the NNAPI of phones",
    {"onnx": ("float32", "int8")},
    source="`onnxruntime/tools/mobile_helpers/nnapi_supported_ops.md` of ONNX Runtime 1.32",
    # NNAPI compiles for fixed shapes: nodes with others run on the CPU.
    operators=frozenset(_NNAPI_OPERATORS.split()),
    fixed_shapes=True,
    otherwise="the CPU runs them instead of the phone's accelerator",
)
PRESETS: Mapping[str, DeploymentPreset] = {row.name: row for row in (_ETHOS_U, _LITERT_JS, _ONNXRUNTIME_MOBILE)}


def find_preset(name: str) -> DeploymentPreset:
    """Return the rules of a preset.

    Args:
        name: The name.

    Returns:
        The rules.

    Raises:
        InputError: The preset is unknown; the message lists the known ones.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, tuple(PRESETS))
    return PRESETS[name]
