"""The table of precisions: one row holds what all targets have in common about a precision."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from edgekit.core.errors import InputError, unknown_name
from edgekit.core.values.tolerances import Tolerances

# Names stand in folder names (`tflite-int8-tuned`) and are split from tags at the hyphen.
_NAME = re.compile(r"[a-z][a-z0-9]*")
_COLOR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True)
class Precision:
    """The number formats of a model file.

    Attributes:
        name: Name on the command line and on disk: lower-case letters and digits.
        title: A short description.
        weight_bits: Bits of a stored weight.
        activation_bits: Bits of an integer activation; None where activations are floating point. Integer activations
            need ranges, which are calibrated with real inputs.
        is_float: Whether the file has no quantization scales: its inputs are not clipped to a calibrated range.
        dynamic_ranges: Whether the runtime quantizes activations by ranges of the current input, which depend on all
            samples of a batch.
        tolerances: Default limits on the distance between the artifact's outputs and its source's.
        tolerance_reason: Why these limits, one clause without a full stop; `edgekit validate --explain` prints it.
        ceiling_db: SQNR in dB above which an inner tensor is as close to its reference as the precision allows, so that
            a drop from there is rounding and no fault.
        anchor_db: SQNR in dB below which a pair of inner tensors is no anchor for pairing by order; 0 where the cosine
            alone decides.
        arithmetic: The type that a CPU computes in, a key of the compute rates of device profiles.
        color: Colour in charts, `#rrggbb` in lower case, with a contrast of 4.5:1 on white.
        refine_rank: Position in the order in which `edgekit tune` tries to keep single layers of a quantized variant in
            float; None where it does not.

    Raises:
        ValueError: The name or the colour is malformed.
    """

    name: str
    title: str
    weight_bits: int
    activation_bits: int | None
    is_float: bool
    tolerances: Tolerances
    tolerance_reason: str
    ceiling_db: float
    arithmetic: str
    color: str
    anchor_db: float = 0.0
    dynamic_ranges: bool = False
    refine_rank: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"the name of a precision must be lower-case letters and digits (got {self.name!r})")
        if not _COLOR.fullmatch(self.color):
            raise ValueError(f"the colour of {self.name} must be written #rrggbb in lower case (got {self.color!r})")

    @property
    def needs_calibration(self) -> bool:
        """Whether a conversion needs real inputs, which integer activations take their ranges from."""
        return self.activation_bits is not None


# From fine to coarse, as reports list them. Sources of the numbers:
# - Tolerances: correct int8 networks reach 25 to 45 dB, broken ones (wrong scale, clipped range) less than 15.
# - `min_agreement`: where two classes are about equally likely, any error decides. Of the pixels of a mask, those along
#   the outlines are undecided: at int8 1 to 4 of 100; in float32 only exact ties.
# - `ceiling_db` and `anchor_db`: validated by `make bench-faults`, see `layerwise_diff.py`.
# - `arithmetic`: CPU kernels unpack float16 weights to float32 and int4 weights to int8.
# - Colours: distinguishable with a colour vision deficiency, after Okabe and Ito. The HTML page has a dark counterpart
#   of each, --s0 to --s5.
PRECISIONS: tuple[Precision, ...] = (
    Precision(
        "float32",
        "32-bit floating point",
        weight_bits=32,
        activation_bits=None,
        is_float=True,
        tolerances=Tolerances(max_abs_error=1e-5, min_cosine=0.9999999, min_top1_agreement=1.0, min_agreement=0.999),
        tolerance_reason="only the order of summation differs",
        ceiling_db=90.0,
        anchor_db=50.0,
        arithmetic="float32",
        color="#0a66b0",
    ),
    Precision(
        "float16",
        "float16 weights, floating-point activations",
        weight_bits=16,
        activation_bits=None,
        is_float=True,
        tolerances=Tolerances(max_abs_error=1e-2, min_cosine=0.9999, min_top1_agreement=0.99, min_agreement=0.99),
        tolerance_reason=(
            "float16 keeps 11 bits of each weight (relative error 2^-11 = 4.9e-4), added up over a few layers"
        ),
        ceiling_db=70.0,
        anchor_db=35.0,
        arithmetic="float32",
        color="#3d9bdc",
    ),
    Precision(
        "dynamic",
        "int8 weights, floating-point activations",
        weight_bits=8,
        activation_bits=None,
        is_float=False,
        dynamic_ranges=True,
        tolerances=Tolerances(min_sqnr_db=20.0, min_cosine=0.99, min_top1_agreement=0.98, min_agreement=0.95),
        tolerance_reason="20 dB is an error of a tenth of the signal; correct int8 weights reach 25 to 45 dB",
        ceiling_db=45.0,
        arithmetic="int8",
        color="#b86e00",
        refine_rank=2,
    ),
    Precision(
        "int8",
        "int8 weights and activations",
        weight_bits=8,
        activation_bits=8,
        is_float=False,
        tolerances=Tolerances(min_sqnr_db=20.0, min_cosine=0.99, min_top1_agreement=0.98, min_agreement=0.95),
        tolerance_reason=(
            "20 dB is an error of a tenth of the signal; correct int8 networks reach 25 to 45 dB, broken ones below 15"
        ),
        ceiling_db=45.0,
        arithmetic="int8",
        color="#00805a",
        refine_rank=1,
    ),
    Precision(
        "int16x8",
        "int16 activations, int8 weights",
        weight_bits=8,
        activation_bits=16,
        is_float=False,
        tolerances=Tolerances(min_sqnr_db=25.0, min_cosine=0.995, min_top1_agreement=0.98, min_agreement=0.97),
        tolerance_reason="with 16-bit activations only the int8 weights add noise",
        ceiling_db=60.0,
        anchor_db=25.0,
        arithmetic="int16",
        color="#a8457f",
    ),
    Precision(
        "int4",
        "int4 weights, floating-point activations",
        weight_bits=4,
        activation_bits=None,
        is_float=False,
        tolerances=Tolerances(min_sqnr_db=10.0, min_cosine=0.95, min_top1_agreement=0.9, min_agreement=0.85),
        tolerance_reason="weights of 16 levels: 10 dB is an error of a third of the signal",
        ceiling_db=45.0,
        arithmetic="int8",
        color="#c4451c",
        refine_rank=3,
    ),
)

_BUILT_IN = {precision.name: precision for precision in PRECISIONS}
# Name -> (precision, owner), of targets of other packages.
_registered: dict[str, tuple[Precision, str]] = {}
# Functions that load what may register precisions; `edgekit.contracts.target` adds one.
_providers: list[Callable[[], None]] = []


def add_precision_provider(provider: Callable[[], None]) -> None:
    """Add a function that loads plug-ins which may register precisions.

    It is called whenever a name is unknown, before that name is refused.

    Args:
        provider: The function.
    """
    _providers.append(provider)


def register_precision(precision: Precision, owner: str) -> None:
    """Add a precision to the table.

    Args:
        precision: The precision. An equal one may be registered repeatedly, also by several owners.
        owner: What defines it, for messages, such as `the target 'coreml'`.

    Raises:
        InputError: Another precision of that name exists; names both definitions.
    """
    name = precision.name
    existing, first_owner = (
        (_BUILT_IN[name], "edgekit itself") if name in _BUILT_IN else _registered.get(name, (precision, owner))
    )
    if existing != precision:
        raise InputError(f"{owner} defines the precision '{name}' differently from {first_owner}; rename one of them")
    if name not in _BUILT_IN:
        _registered.setdefault(name, (precision, owner))


def precisions() -> tuple[Precision, ...]:
    """Return all precisions: the built-in ones, then the registered ones by name."""
    return (*PRECISIONS, *(_registered[name][0] for name in sorted(_registered)))


def precision_names() -> tuple[str, ...]:
    """Return the names of all precisions, in the order of the table."""
    return tuple(precision.name for precision in precisions())


def precision_of_width(bits: float) -> str:
    """Return the precision of a file of which only the width of its weights is known.

    Args:
        bits: The bits of a weight, or fewer.

    Returns:
        The precision with the narrowest weights of at least so many bits; of several, one whose activations are as
        wide. `float32` if none has such weights.
    """
    wide_enough = [precision for precision in precisions() if precision.weight_bits >= bits]
    best = min(
        wide_enough,
        key=lambda precision: (precision.weight_bits, precision.activation_bits != precision.weight_bits),
        default=find_precision("float32"),
    )
    return best.name


def is_precision(name: str) -> bool:
    """Return whether a precision of that name exists.

    An unknown name first lets the targets of other packages register theirs.

    Args:
        name: The name.

    Returns:
        True where the table has it.
    """
    if name not in _BUILT_IN and name not in _registered:
        for provider in _providers:
            provider()
    return name in _BUILT_IN or name in _registered


def find_precision(name: str) -> Precision:
    """Return the row of a precision.

    Args:
        name: The name.

    Returns:
        The precision.

    Raises:
        InputError: The precision is unknown; the message lists the known ones.
    """
    if not is_precision(name):
        raise unknown_name("precision", name, precision_names())
    return _BUILT_IN[name] if name in _BUILT_IN else _registered[name][0]


def parse_precision(text: str) -> str:
    """Return the precision unchanged where it is a known one.

    Args:
        text: The precision as the user typed it.

    Returns:
        The precision.

    Raises:
        InputError: The precision is unknown; the message lists the known ones.
    """
    return find_precision(text).name
