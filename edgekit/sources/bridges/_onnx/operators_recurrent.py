"""The operators LSTM, GRU and RNN: torch's own functions where the equations agree, else an unrolled computation.

Shapes: x (T, N, I), W (D, gates * H, I), R (D, gates * H, H), B (D, 2 * gates * H), states (D, N, H), with T steps, N
samples, I inputs, H hidden units and D directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.sources.bridges._onnx.registry import Call, operator

# The indices of ONNX's gates in torch's order. LSTM: ONNX has i, o, f, c, torch i, f, g, o (g is c). GRU: ONNX has z,
# r, h, torch r, z, n (n is h).
_TORCH_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}

# The default activations, f, g and h of the standard's equations.
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


@operator("LSTM", "GRU", "RNN")
def _recurrent(call: Call) -> Any:
    x = call.tensor(0)
    if call.attribute("layout", 0):  # since opset 14: 1 puts the batch first
        x = x.transpose(0, 1)
    states = _states(call, x)
    y, finals = _by_torch(call, x, states) if _torch_can(call, x) else _step_by_step(call, x, states)
    if call.attribute("layout", 0):
        y, finals = y.permute(2, 0, 1, 3), [state.transpose(0, 1) for state in finals]
    return y, *finals


def _directions(call: Call) -> int:
    return 2 if call.attribute("direction", "forward") == "bidirectional" else 1


def _states(call: Call, x: Any) -> list[Any]:
    """Return the initial hidden state and, for an LSTM, the initial cell state, (D, N, H) each."""
    count = 2 if call.step.op_type == "LSTM" else 1
    states = [call.maybe(5 + index) for index in range(count)]
    if call.attribute("layout", 0):
        states = [state if state is None else state.transpose(0, 1) for state in states]
    shape = [_directions(call), x.shape[1], call.tensor(2).shape[-1]]
    return [x.new_zeros(shape) if state is None else state for state in states]


def _activations(call: Call) -> list[str]:
    return list(call.attribute("activations") or _DEFAULTS[call.step.op_type] * _directions(call))


def _whole(call: Call, x: Any) -> bool:
    """Return whether every sequence is as long as the input, so that `sequence_lens` has no effect."""
    if not call.has(4):
        return True
    lengths = call.host(4)
    return lengths is not None and isinstance(x.shape[0], int) and bool((lengths == x.shape[0]).all())


def _torch_can(call: Call, x: Any) -> bool:
    """Return whether torch's function computes what the node describes.

    torch has no single reverse direction, clipping, peepholes (input 7) or coupled input and forget gates, and its GRU
    applies the reset gate after the matrix product only (`linear_before_reset` = 1).
    """
    op_type = call.step.op_type
    if call.attribute("direction", "forward") == "reverse" or call.attribute("clip") or call.has(7):
        return False
    if call.attribute("input_forget", 0) or (op_type == "GRU" and not call.attribute("linear_before_reset", 0)):
        return False
    plain = [list(_DEFAULTS[op_type])] + ([["Relu"]] if op_type == "RNN" else [])
    return _whole(call, x) and any(_activations(call) == one * _directions(call) for one in plain)


def _in_torch_order(tensor: Any, op_type: str) -> Any:
    """Return the gates, along the first axis, in torch's order.

    Slices rather than chunk(): chunk returns a tuple, which `_functional._fold_constants` does not fold.
    """
    import torch

    order = _TORCH_ORDER[op_type]
    size = tensor.shape[0] // len(order)
    gates = [tensor[index * size : (index + 1) * size] for index in order]
    return gates[0] if len(gates) == 1 else torch.cat(gates, dim=0)


def _by_torch(call: Call, x: Any, states: list[Any]) -> tuple[Any, list[Any]]:
    import torch

    op_type, directions = call.step.op_type, _directions(call)
    weights = []
    for direction in range(directions):
        parts = [call.tensor(1)[direction], call.tensor(2)[direction]]
        if call.has(3):
            both = call.tensor(3)[direction]
            parts += [both[: both.shape[0] // 2], both[both.shape[0] // 2 :]]
        weights += [_in_torch_order(part, op_type) for part in parts]
    relu = _activations(call)[0] == "Relu"
    function = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_relu if relu else torch.rnn_tanh}[op_type]
    # Positional arguments: has_biases, num_layers, dropout, train, bidirectional, batch_first.
    start = states if op_type == "LSTM" else states[0]
    y, *finals = function(x, start, weights, call.has(3), 1, 0.0, False, directions == 2, False)
    steps, batch = x.shape[0], x.shape[1]
    y = y.reshape(steps, batch, directions, -1).transpose(1, 2)  # (T, N, D * H) -> (T, D, N, H)
    return y, finals


@dataclass(frozen=True)
class _Cell:
    """One direction of a recurrent node.

    Attributes:
        weight: W of the direction, (gates * H, I).
        recurrent: R of the direction, (gates * H, H).
        bias: The bias of the input, (gates * H,).
        recurrent_bias: The bias of the recurrence, (gates * H,).
        peepholes: The LSTM's peephole weights i, o and f, (H,) each, or None.
        functions: The activations f, g and h.
        clip: The limit of the gates before their activation, or None.
        reset_after: Whether a GRU applies the reset gate after the matrix product.
        input_forget: Whether an LSTM's forget gate is 1 minus its input gate.
    """

    weight: Any
    recurrent: Any
    bias: Any
    recurrent_bias: Any
    peepholes: Any
    functions: Sequence[Callable[[Any], Any]]
    clip: float | None
    reset_after: bool
    input_forget: bool

    def clipped(self, x: Any) -> Any:
        """Return a gate clipped to [-clip, clip], as ONNX does before the activation."""
        return x if self.clip is None else x.clamp(-self.clip, self.clip)


def _cell(call: Call, direction: int) -> _Cell:
    hidden = call.tensor(2).shape[-1]
    per = len(_DEFAULTS[call.step.op_type])
    bias = call.tensor(3)[direction] if call.has(3) else call.tensor(1).new_zeros(2 * call.tensor(1).shape[1])
    bias_input, bias_recurrent = bias.chunk(2)
    return _Cell(
        call.tensor(1)[direction],
        call.tensor(2)[direction],
        bias_input,
        bias_recurrent,
        call.tensor(7)[direction].split(hidden) if call.has(7) else None,
        [_activation(call, direction * per + index) for index in range(per)],
        call.attribute("clip"),
        bool(call.attribute("linear_before_reset", 0)),
        bool(call.attribute("input_forget", 0)),
    )


def _activation(call: Call, index: int) -> Callable[[Any], Any]:
    """Return the activation at an index of `activations`, with its alpha and beta."""
    import torch
    import torch.nn.functional as F

    name = _activations(call)[index].lower()  # names are case-insensitive in the standard
    alphas, betas = call.attribute("activation_alpha") or [], call.attribute("activation_beta") or []
    # The standard's defaults, those of the operators of the same names.
    defaults = {"leakyrelu": (0.01, 0), "hardsigmoid": (0.2, 0.5), "elu": (1.0, 0), "thresholdedrelu": (1.0, 0)}
    alpha, beta = defaults.get(name, (1.0, 0.0))
    alpha = alphas[index] if index < len(alphas) else alpha
    beta = betas[index] if index < len(betas) else beta
    functions: dict[str, Callable[[Any], Any]] = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "softsign": F.softsign,
        "softplus": F.softplus,
        "leakyrelu": lambda x: F.leaky_relu(x, alpha),
        "thresholdedrelu": lambda x: F.threshold(x, alpha, 0.0),
        "hardsigmoid": lambda x: (alpha * x + beta).clamp(0, 1),
        "elu": lambda x: F.elu(x, alpha),
        "affine": lambda x: alpha * x + beta,
        "scaledtanh": lambda x: alpha * torch.tanh(beta * x),
    }
    return functions[name]


# The steps below take x after its projection, W x + Wb, (N, gates * H), and return the new states, (N, H) each. The
# equations are those of the operators' documentation.
def _rnn_step(cell: _Cell, x: Any, states: list[Any]) -> list[Any]:
    total = x + states[0] @ cell.recurrent.t() + cell.recurrent_bias
    return [cell.functions[0](cell.clipped(total))]


def _gru_step(cell: _Cell, x: Any, states: list[Any]) -> list[Any]:
    (hidden,) = states
    f, g = cell.functions
    xz, xr, xh = x.chunk(3, dim=-1)
    rz, rr, rh = cell.recurrent.chunk(3)
    bz, br, bh = cell.recurrent_bias.chunk(3)
    z = f(cell.clipped(xz + hidden @ rz.t() + bz))
    r = f(cell.clipped(xr + hidden @ rr.t() + br))
    inner = r * (hidden @ rh.t() + bh) if cell.reset_after else (r * hidden) @ rh.t() + bh
    return [(1 - z) * g(cell.clipped(xh + inner)) + z * hidden]


def _lstm_step(cell: _Cell, x: Any, states: list[Any]) -> list[Any]:
    hidden, memory = states
    f, g, h = cell.functions
    # Peepholes see the previous cell state in i and f, and the new one in o.
    i, o, forget, c = (x + hidden @ cell.recurrent.t() + cell.recurrent_bias).chunk(4, dim=-1)
    pi, po, pf = cell.peepholes if cell.peepholes is not None else (0.0, 0.0, 0.0)
    i = f(cell.clipped(i + pi * memory))
    forget = 1 - i if cell.input_forget else f(cell.clipped(forget + pf * memory))
    memory = forget * memory + i * g(cell.clipped(c))
    return [f(cell.clipped(o + po * memory)) * h(memory), memory]


_STEPS = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}


def _step_by_step(call: Call, x: Any, states: list[Any]) -> tuple[Any, list[Any]]:
    import torch

    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    outputs, finals = [], []
    for direction, backward in enumerate(backwards[call.attribute("direction", "forward")]):
        y, last = _one_direction(call, x, [state[direction] for state in states], direction, backward)
        outputs.append(y)
        finals.append(last)
    return torch.stack(outputs, dim=1), [torch.stack(parts) for parts in zip(*finals, strict=True)]


def _one_direction(call: Call, x: Any, states: list[Any], direction: int, backward: bool) -> tuple[Any, list[Any]]:
    """Return outputs (T, N, H) and final states (N, H) of one direction.

    Beyond a sequence's length, outputs are zero and states keep their values.
    """
    import torch
    import torch.nn.functional as F

    cell = _cell(call, direction)
    projected = F.linear(x, cell.weight, cell.bias)  # one product for all steps
    lengths = None if _whole(call, x) else call.tensor(4)
    outputs: list[Any] = [None] * x.shape[0]
    for at in reversed(range(x.shape[0])) if backward else range(x.shape[0]):
        following = _STEPS[call.step.op_type](cell, projected[at], states)
        if lengths is None:
            states, outputs[at] = following, following[0]
            continue
        inside = (lengths > at).unsqueeze(1)
        states = [torch.where(inside, new, old) for new, old in zip(following, states, strict=True)]
        outputs[at] = torch.where(inside, following[0], torch.zeros_like(following[0]))
    return torch.stack(outputs), states
