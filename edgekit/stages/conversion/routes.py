"""How a source reaches a target: the shortest way over the bridges to a converter that takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgekit.contracts.bridge import BRIDGES
from edgekit.contracts.runtime import RUNTIMES, Runtime
from edgekit.contracts.source import SOURCES
from edgekit.contracts.target import TARGETS, Target
from edgekit.core.errors import InputError
from edgekit.core.values.precisions import parse_precision
from edgekit.core.values.specs import Route, Variant

Edge = tuple[str, str]


def bridges() -> tuple[Edge, ...]:
    """Every bridge, from the names of the files: `keras-to-torch` is ("keras", "torch")."""
    return tuple(_edge(name) for name in BRIDGES.names())


def _edge(name: str) -> Edge:
    source, _, kind = name.partition("-to-")
    return source, kind


def edges() -> tuple[Edge, ...]:
    """Every way from kind to kind: the bridges, and the targets whose files are a source kind too (ONNX)."""
    kinds = SOURCES.names()
    written = [
        (kind, name) for name in TARGETS.names() if name in kinds for kind in load_target(name).routes if kind != name
    ]
    return (*bridges(), *written)


def targets() -> dict[str, Target]:
    """Every target by name."""
    return {name: load_target(name) for name in TARGETS.names()}


def load_target(name: str) -> Target:
    """The target. Raises InputError that lists the known ones."""
    return TARGETS.load(name)


def runtimes_of(target: str) -> tuple[str, ...]:
    """Return the runtimes that run a target's files, the default first.

    Raises:
        InputError: There is no such target.
    """
    default = load_target(target).runtime
    others = [name for name, runtime in RUNTIMES.load_all().items() if target in runtime.targets and name != default]
    return (default, *others)


def arena_runtime_of(target: str) -> Runtime | None:
    """Return the runtime that runs a target's files in an arena, as on a microcontroller, or None."""
    candidates = (RUNTIMES.load(name) for name in runtimes_of(target))
    return next((runtime for runtime in candidates if runtime.has_arena), None)


def find_routes(kind: str, target: Target, precision: str, edges: Iterable[Edge]) -> tuple[Route, ...]:
    """Every route from a source kind to a target at a precision that crosses no kind twice, the shortest first."""
    edges = tuple(edges)
    paths: list[tuple[str, ...]] = [(kind,)]
    found: list[Route] = []
    while paths:
        path = paths.pop(0)
        if precision in target.routes.get(path[-1], ()):
            found.append(Route((*path, target.name)))
        paths += [(*path, reached) for source, reached in edges if source == path[-1] and reached not in path]
    return tuple(found)


def shortest_route(kind: str, target: Target, precision: str, edges: Iterable[Edge]) -> Route | None:
    """The shortest of them; None when there is none."""
    return next(iter(find_routes(kind, target, precision, edges)), None)


def bridge_name(edge: Edge) -> str:
    """`keras-to-torch`"""
    return f"{edge[0]}-to-{edge[1]}"


def why_withheld(route: Route, precision: str) -> str | None:
    """Why a route cannot be taken though its converters are there.

    A bridge says so, or it crosses several: a source is carried over one, and before it may be written as a file.
    """
    real = [edge in bridges() for edge in route.bridges]
    if real not in ([], [True], [False, True]):
        return "no model is carried over several bridges"
    for edge in route.bridges:
        if edge in bridges():
            bridge = BRIDGES.load(bridge_name(edge))
            reason = bridge.withheld.get(f"{route.steps[-1]}:{precision}")
            if reason:
                return reason
    return None


def available_routes(kind: str, target: Target, precision: str, edges: Iterable[Edge]) -> tuple[Route, ...]:
    """The routes that can be taken, the shortest first: when one crashes, the next is tried."""
    return tuple(route for route in find_routes(kind, target, precision, edges) if not why_withheld(route, precision))


def why_unreachable(kind: str, target: Target, precision: str, edges: Iterable[Edge]) -> str | None:
    """Why a source kind cannot reach a target at a precision, in one sentence; None when it can."""
    found = find_routes(kind, target, precision, edges)
    reasons = [why_withheld(route, precision) for route in found]
    if None in reasons:
        return None
    direct = [name for name, precisions in target.routes.items() if precision in precisions]
    return reasons[0] if reasons else f"{target.name}:{precision} is made from {' or '.join(direct)} only"


def routes_by_precision(kind: str, target: Target, edges: Iterable[Edge]) -> dict[str, tuple[Route, ...]]:
    """Precision -> routes that can be taken, in the target's own order of precisions."""
    edges = tuple(edges)
    found = {precision: available_routes(kind, target, precision, edges) for precision in target.precisions}
    return {precision: routes for precision, routes in found.items() if routes}


def parse_route(text: str) -> tuple[str, ...]:
    """`keras,torch,tflite` or `keras -> torch -> tflite` as steps."""
    return tuple(step.strip() for step in text.replace("->", ",").split(","))


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


def select_variants(
    kinds: Iterable[str],
    selection: Iterable[tuple[Target, str | None]],
    *,
    kinds_named: bool,
    targets_named: bool,
) -> tuple[tuple[str, Variant, tuple[Route, ...]], ...]:
    """What to export of one model: (source kind, variant, routes, the shortest first).

    Every kind takes the variants that it reaches. Raises InputError when a target that the user named is reached by
    none of the kinds, or, where the user named the kinds too, not by one of them; the message lists what there is.
    """
    ways_between, kinds = edges(), tuple(kinds)
    chosen: dict[tuple[str, Variant], tuple[Route, ...]] = {}
    for target, precision in selection:
        reached = {kind: _wanted(routes_by_precision(kind, target, ways_between), precision) for kind in kinds}
        empty = [kind for kind, routes in reached.items() if not routes]
        if targets_named and (len(empty) == len(kinds) or (kinds_named and empty)):
            raise _unreachable(target, precision, empty, ways_between)
        for kind, routes in reached.items():
            chosen |= {(kind, Variant(target.name, name)): found for name, found in routes.items()}
    return tuple((kind, variant, found) for (kind, variant), found in chosen.items())


def _wanted(routes: Mapping[str, tuple[Route, ...]], precision: str | None) -> dict[str, tuple[Route, ...]]:
    return {name: found for name, found in routes.items() if precision in (None, name)}


def _unreachable(target: Target, precision: str | None, kinds: Iterable[str], edges: Iterable[Edge]) -> InputError:
    wanted = f"{target.name}:{precision}" if precision else target.name
    what = "; ".join(
        f"{kind} reaches it as {', '.join(names) or 'nothing'}"
        for kind, names in _reachable_by_kind(target, edges).items()
    )
    return InputError(f"no route from {' or '.join(kinds)} to {wanted}; {what}")


def _reachable_by_kind(target: Target, edges: Iterable[Edge]) -> dict[str, list[str]]:
    kinds = SOURCES.names()
    found = {kind: list(routes_by_precision(kind, target, edges)) for kind in kinds}
    return {kind: names for kind, names in found.items() if names}
