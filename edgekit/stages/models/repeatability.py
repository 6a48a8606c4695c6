"""Whether a source repeats itself, which a verdict presupposes; checked before anything is measured.

An artifact is judged by the source's outputs, one sample a call, since a device computes one sample at a time and a
converted file must not depend on what it computed before. Three kinds of models need care:

- **State.** A call changes a buffer or a variable (stateful recurrent layers, a history of frames, a counter). Each
  sample is judged from the initial state, in source and artifact alike: otherwise the outputs of a sample depend on
  which samples were computed before it, and in how many calls.
- **A sample that depends on its batch.** Batch normalization without running statistics, or a mean over everything.
  Computed with other samples, its outputs are others; the source is run one sample a call, as the artifacts are.
- **Random numbers.** Dropout that stays on, noise that is drawn. Nothing can be equivalent to such a model; it is
  refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgekit.contracts.source import LoadedModel
from edgekit.core.errors import InputError
from edgekit.core.numerics import batching
from edgekit.core.numerics.metrics import Array

# Two samples find out: a model that draws numbers draws others at once.
_SAMPLES = 2
# Samples of one call that show whether they influence one another: of two, both may be on the same side of a condition.
_BATCH_SAMPLES = 8
# Differences beyond this share of the largest output are no rounding. A larger batch changes the order of summation,
# which costs some units in the last place (1.2e-7); dependence on the batch changes the outputs visibly.
_ROUNDING_SHARE = 1e-4


@dataclass(frozen=True)
class Repeatability:
    """How a source has to be run so that its outputs repeat.

    Attributes:
        state: Names of what a call changes.
        one_by_one: Whether each sample needs a call of its own.
        notes: What the user has to know, a sentence each.
    """

    state: tuple[str, ...]
    one_by_one: bool
    notes: tuple[str, ...]


def snapshot(loaded: LoadedModel) -> dict[str, Array]:
    """Return copies of a model's state.

    Args:
        loaded: The model.

    Returns:
        Arrays by name.
    """
    return {name: np.array(value) for name, value in loaded.state().items()}


def make_repeatable(loaded: LoadedModel, inputs: Mapping[str, Array], initial: Mapping[str, Array]) -> Repeatability:
    """Find out how a model has to be run so that its outputs repeat, and set it up for that.

    Args:
        loaded: The model, which has been run at least once since `initial` was taken.
        inputs: Samples by input name, shape (N, ...).
        initial: The state before the first run.

    Returns:
        What was found.

    Raises:
        InputError: The outputs of the same sample differ from call to call.
    """
    changed = tuple(
        name
        for name, value in loaded.state().items()
        if name in initial and np.asarray(value).tobytes() != initial[name].tobytes()
    )
    loaded.keep_state(changed, initial)
    few = min(_SAMPLES, batching.n_samples(loaded.signature, inputs))
    samples = batching.select_samples(loaded.signature, inputs, 0, few)
    loaded.one_by_one = True
    alone, again = loaded.run(samples), loaded.run(samples)
    difference = _difference(alone, again)
    if difference > 0:
        raise InputError(_random_message(loaded, samples, difference))
    batch = len(changed) == 0 and few > 1 and batching.has_symbolic_batch(loaded.signature)
    depends = batch and _depends_on_batch(loaded, inputs)
    loaded.one_by_one = bool(changed) or depends
    notes = []
    if changed:
        notes.append(
            f"the model keeps state between calls ({', '.join(map(_short, changed))}); each sample is compared from the"
            " initial state"
        )
    if depends:
        notes.append(
            "the outputs of a sample depend on the other samples of its call (such as batch normalization without"
            " running statistics); source and artifacts are compared one sample a call"
        )
    return Repeatability(changed, loaded.one_by_one, tuple(notes))


def _short(name: str) -> str:
    """Return the name without the index that makes it unique."""
    head, _, tail = name.partition("/")
    return tail if head.isdigit() and tail else name


def _difference(first: Mapping[str, Array], second: Mapping[str, Array]) -> float:
    """Return the largest difference, as a share of the largest output of its tensor; infinity for other shapes."""
    differences = [0.0]
    for name, array in first.items():
        other = second[name]
        if array.shape != other.shape:
            return float("inf")
        if np.array_equal(array, other, equal_nan=array.dtype.kind == "f"):
            continue
        r, a = array.astype(np.float64), other.astype(np.float64)
        with np.errstate(invalid="ignore"):
            apart = np.nan_to_num(np.abs(r - a), nan=np.inf)
        apart[(r == a) | (np.isnan(r) & np.isnan(a))] = 0
        scale = float(np.max(np.abs(r), initial=0.0, where=np.isfinite(r)))
        differences.append(float(apart.max()) / scale if scale else float("inf"))
    return max(differences)


def _depends_on_batch(loaded: LoadedModel, inputs: Mapping[str, Array]) -> bool:
    several = min(_BATCH_SAMPLES, batching.n_samples(loaded.signature, inputs))
    samples = batching.select_samples(loaded.signature, inputs, 0, several)
    alone = loaded.run(samples)
    loaded.one_by_one = False
    try:
        together = loaded.run(samples)
    except Exception:  # noqa: BLE001 - a model may take one sample only, whatever its file says
        return True
    return _difference(alone, together) > _ROUNDING_SHARE


def _random_message(loaded: LoadedModel, samples: Mapping[str, Array], difference: float) -> str:
    try:
        operators = loaded.random_operators(batching.select_samples(loaded.signature, samples, 0, 1))
    except Exception:  # noqa: BLE001 - naming the cause must not hide the finding
        operators = ()
    cause = (
        f"it draws random numbers in {', '.join(operators)}" if operators else "it draws random numbers or keeps state"
    )
    share = "" if not np.isfinite(difference) else f" by {100 * difference:.2g} % of the largest output"
    return (
        f"the model does not repeat itself: the outputs of the same sample differ from call to call{share}, so that no"
        f" file can be compared with it; {cause}; disable dropout for inference, or pass noise as an input"
    )
