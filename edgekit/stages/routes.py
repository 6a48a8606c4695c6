"""How a source reaches a target: the shortest way over the bridges to a converter that takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgekit.core import plugins
from edgekit.core.errors import InputError
from edgekit.core.specs import Route, Variant, parse_precision
from edgekit.targets._base import Target

Edge = tuple[str, str]


def bridges() -> tuple[Edge, ...]:
    """Every bridge, from the names of the files: `keras-to-torch` is ("keras", "torch")."""
    return tuple((source, kind) for name in plugins.names("edgekit.sources.bridges") for source, kind in [_edge(name)])


def _edge(name: str) -> Edge:
    source, _, kind = name.partition("-to-")
    return source, kind


def targets() -> dict[str, Target]:
    """Every target by name."""
    return {name: load_target(name) for name in plugins.names("edgekit.targets")}


def load_target(name: str) -> Target:
    """The target. Raises InputError that lists the known ones."""
    target: Target = plugins.load("edgekit.targets", name, "TARGET")
    return target


def find(kind: str, target: Target, precision: str, edges: Iterable[Edge]) -> Route | None:
    """The shortest route from a source kind to a target at a precision, breadth first; None when there is none."""
    edges = tuple(edges)
    paths: list[tuple[str, ...]] = [(kind,)]
    seen = {kind}
    while paths:
        path = paths.pop(0)
        if precision in target.routes.get(path[-1], ()):
            return Route((*path, target.name))
        for source, reached in edges:
            if source == path[-1] and reached not in seen:
                seen.add(reached)
                paths.append((*path, reached))
    return None


def reachable(kind: str, target: Target, edges: Iterable[Edge]) -> dict[str, Route]:
    """Precision -> route, in the target's own order of precisions."""
    edges = tuple(edges)
    found = {precision: find(kind, target, precision, edges) for precision in target.precisions}
    return {precision: route for precision, route in found.items() if route is not None}


def parse_selection(texts: Iterable[str], precision: str | None) -> tuple[tuple[Target, str | None], ...]:
    """The user's `--target` texts (`tflite`, `tflite:int8`) with `--precision`: (target, precision or None for all).

    No text stands for every target. Raises InputError for an unknown target or precision, or one that a named target
    does not have; a `--precision` without a `--target` takes the targets that have it.
    """
    texts = tuple(texts)
    if precision is not None:
        parse_precision(precision)
    if not texts:
        return tuple(
            (target, precision) for target in targets().values() if precision is None or precision in target.precisions
        )
    chosen: list[tuple[Target, str | None]] = []
    for text in texts:
        name, colon, suffix = text.partition(":")
        wanted = Variant.parse(text).precision if colon else precision
        if suffix and precision and suffix != precision:
            raise InputError(f"--target {text} and --precision {precision} contradict each other")
        target = load_target(name)
        if wanted is not None and wanted not in target.precisions:
            raise InputError(f"target {name} has no precision {wanted}; it has: {', '.join(target.precisions)}")
        chosen.append((target, wanted))
    return tuple(chosen)


def select(
    kinds: Iterable[str],
    selection: Iterable[tuple[Target, str | None]],
    *,
    kinds_named: bool,
    targets_named: bool,
) -> tuple[tuple[str, Variant, Route], ...]:
    """What to export of one model: (source kind, variant, route).

    Every kind takes the variants that it reaches. Raises InputError when a target that the user named is reached by
    none of the kinds, or, where the user named the kinds too, not by one of them; the message lists what there is.
    """
    edges, kinds = bridges(), tuple(kinds)
    chosen: dict[tuple[str, Variant], Route] = {}
    for target, precision in selection:
        reached = {kind: _wanted(reachable(kind, target, edges), precision) for kind in kinds}
        empty = [kind for kind, routes in reached.items() if not routes]
        if targets_named and (len(empty) == len(kinds) or (kinds_named and empty)):
            raise _unreachable(target, precision, empty, edges)
        for kind, routes in reached.items():
            chosen |= {(kind, Variant(target.name, name)): route for name, route in routes.items()}
    return tuple((kind, variant, route) for (kind, variant), route in chosen.items())


def _wanted(routes: Mapping[str, Route], precision: str | None) -> dict[str, Route]:
    return {name: route for name, route in routes.items() if precision in (None, name)}


def _unreachable(target: Target, precision: str | None, kinds: Iterable[str], edges: Iterable[Edge]) -> InputError:
    wanted = f"{target.name}:{precision}" if precision else target.name
    what = "; ".join(
        f"{kind} reaches it as {', '.join(names) or 'nothing'}" for kind, names in _all(target, edges).items()
    )
    return InputError(f"no route from {' or '.join(kinds)} to {wanted}; {what}")


def _all(target: Target, edges: Iterable[Edge]) -> dict[str, list[str]]:
    kinds = plugins.names("edgekit.sources")
    found = {kind: list(reachable(kind, target, edges)) for kind in kinds}
    return {kind: names for kind, names in found.items() if names}
