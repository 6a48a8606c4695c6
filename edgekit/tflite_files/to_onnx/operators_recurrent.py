"""Recurrent operators."""

from __future__ import annotations

import numpy as np

from edgekit.core.numerics.metrics import Array
from edgekit.tflite_files.to_onnx.builder import LiteOperator, Untranslatable, translates

_TANH, _RELU, _NONE = 4, 1, 0
# The places of the inputs of UNIDIRECTIONAL_SEQUENCE_LSTM: of each gate in TFLite's order (input, forget, cell,
# output) the weights of the input and of the state, and the bias; the peepholes have no cell gate.
_INPUT_WEIGHTS, _STATE_WEIGHTS, _PEEPHOLES, _BIASES = (1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11), (12, 13, 14, 15)
_PROJECTIONS, _NORMS = (16, 17), (20, 21, 22, 23)
# From TFLite's order of gates to ONNX's: input, output, forget, cell.
_GATES = (0, 3, 1, 2)


@translates("UNIDIRECTIONAL_SEQUENCE_LSTM")
def _lstm(operation: LiteOperator) -> None:
    if any(operation.has(position) for position in (*_PROJECTIONS, *_NORMS)):
        raise Untranslatable("with a projection or layer normalization")
    if not operation.has(_INPUT_WEIGHTS[0]):
        raise Untranslatable("with coupled input and forget gates")
    if any(float(operation.option(name, 0.0)) for name in ("cellClip", "projClip")):
        raise Untranslatable("with clipped states")
    if int(operation.option("fusedActivationFunction", _TANH)) != _TANH:
        raise Untranslatable("with another activation than tanh")
    weights, recurrent = (_gates(operation, positions) for positions in (_INPUT_WEIGHTS, _STATE_WEIGHTS))
    units = recurrent.shape[-1]
    bias = np.concatenate([_gates(operation, _BIASES), np.zeros(4 * units, np.float32)])
    inputs = [operation.constant(array[None]) for array in (weights, recurrent, bias)]
    if operation.has(_PEEPHOLES[0]) or operation.has(_PEEPHOLES[1]):
        order = (_PEEPHOLES[0], _PEEPHOLES[2], _PEEPHOLES[1])  # input, output, forget
        inputs += ["", "", "", operation.constant(np.concatenate([_constant(operation, at) for at in order])[None])]
    _set_sequence(operation, "LSTM", inputs, units)


@translates("UNIDIRECTIONAL_SEQUENCE_RNN")
def _rnn(operation: LiteOperator) -> None:
    names = {_TANH: "Tanh", _RELU: "Relu"}
    function = int(operation.option("fusedActivationFunction", _NONE))
    if function not in names:
        raise Untranslatable("with another activation than tanh or relu")
    weights, recurrent, bias = (_constant(operation, position) for position in (1, 2, 3))
    both = np.concatenate([bias, np.zeros_like(bias)])
    inputs = [operation.constant(array[None]) for array in (weights, recurrent, both)]
    _set_sequence(operation, "RNN", inputs, len(bias), activations=[names[function]])


def _set_sequence(operation: LiteOperator, op_type: str, inputs: list[str], units: int, **attributes: object) -> None:
    """Emit a recurrent operator over (time, batch, features), which is ONNX's order, and set the sequence of states."""
    time_major = bool(operation.option("timeMajor", False))
    x = operation.input(0)
    x = x if time_major else operation.emit("Transpose", x, perm=(1, 0, 2))
    states = operation.emit(op_type, x, *inputs, hidden_size=units, **attributes)  # (time, direction, batch, units)
    states = operation.emit("Squeeze", states, operation.constant([1], "int64"))
    operation.set(states if time_major else operation.emit("Transpose", states, perm=(1, 0, 2)))


def _gates(operation: LiteOperator, positions: tuple[int, ...]) -> Array:
    """Return the constants of the four gates in ONNX's order, along the first axis."""
    return np.concatenate([_constant(operation, positions[gate]) for gate in _GATES])


def _constant(operation: LiteOperator, position: int) -> Array:
    constant = operation.const(position)
    if constant is None:
        raise Untranslatable("with weights that are computed")
    return constant
