"""Routes from source kinds to targets: direct conversions, and conversions through bridges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgekit.contracts.bridge import BRIDGES
from edgekit.contracts.runtime import RUNTIMES, Runtime
from edgekit.contracts.source import SOURCES
from edgekit.contracts.target import TARGETS, Target
from edgekit.core.errors import InputError
from edgekit.core.values.precisions import parse_precision
from edgekit.core.values.specs import Route, Variant

# (from source kind, to source kind)
Edge = tuple[str, str]


def bridges() -> tuple[Edge, ...]:
    """Return every bridge as an edge; the names of the files define them: `keras-to-torch` is ("keras", "torch")."""
    return tuple(_edge(name) for name in BRIDGES.names())


def _edge(name: str) -> Edge:
    source, _, kind = name.partition("-to-")
    return source, kind


def edges() -> tuple[Edge, ...]:
    """Return every edge between source kinds: the bridges, and the targets that are a source kind too (ONNX)."""
    kinds = SOURCES.names()
    # Not by way of a SavedModel: what converts it converts the Keras model itself.
    files = [
        name
        for name in TARGETS.names()
        if name in kinds and SOURCES.load(name).intermediate and not load_target(name).only_named
    ]
    convertible = [(kind, name) for name in files for kind in load_target(name).routes if kind != name]
    return (*bridges(), *convertible)


def targets() -> dict[str, Target]:
    """Return every target by name."""
    return {name: load_target(name) for name in TARGETS.names()}


def load_target(name: str) -> Target:
    """Return a target.

    Args:
        name: Name of the target.

    Raises:
        InputError: There is no such target; the message lists all of them.
    """
    return TARGETS.load(name)


def runtimes_of(target: str) -> tuple[str, ...]:
    """Return the runtimes that run a target's files, the default first.

    Args:
        target: Name of the target.

    Raises:
        InputError: There is no such target.
    """
    default = load_target(target).runtime
    others = [name for name, runtime in RUNTIMES.load_all().items() if target in runtime.targets and name != default]
    return (default, *others)


def arena_runtime_of(target: str) -> Runtime | None:
    """Return the runtime that runs a target's files in an arena, as on a microcontroller, or None.

    Args:
        target: Name of the target.

    Raises:
        InputError: There is no such target.
    """
    candidates = (RUNTIMES.load(name) for name in runtimes_of(target))
    return next((runtime for runtime in candidates if runtime.has_arena), None)


def find_routes(kind: str, target: Target, precision: str, edges: Iterable[Edge]) -> tuple[Route, ...]:
    """Find every route from a source kind to a target that makes no kind of file twice, by breadth-first search.

    Args:
        kind: The source kind.
        target: The target.
        precision: The precision that the route must produce.
        edges: The bridges and other conversions between source kinds.

    Returns:
        The routes, the shortest first.
    """
    edges = tuple(edges)
    paths: list[tuple[str, ...]] = [(kind,)]
    routes: list[Route] = []
    while paths:
        path = paths.pop(0)
        # A file of the target that was only on the way would be made again from itself.
        if target.name not in path[1:] and precision in target.routes.get(path[-1], ()):
            routes.append(Route((*path, target.name)))
        paths += [(*path, end) for start, end in edges if start == path[-1] and end not in path]
    return tuple(routes)


def bridge_name(edge: Edge) -> str:
    """Return the name of the bridge that an edge stands for, such as `keras-to-torch`."""
    return f"{edge[0]}-to-{edge[1]}"


def why_withheld(route: Route, precision: str) -> str | None:
    """Return why a route is not available although its converters exist, or None if it is available.

    A route has at most one bridge, optionally after a conversion to a file of another source kind. A bridge can also
    declare variants that it does not support.

    Args:
        route: The route.
        precision: The precision at its end.
    """
    is_bridge = [edge in bridges() for edge in route.bridges]
    if is_bridge not in ([], [True], [False, True]):
        return "a route can use only one bridge"
    for edge in route.bridges:
        if edge in bridges():
            bridge = BRIDGES.load(bridge_name(edge))
            reason = bridge.withheld.get(f"{route.steps[-1]}:{precision}")
            if reason:
                return reason
    return None


def available_routes(kind: str, target: Target, precision: str, edges: Iterable[Edge]) -> tuple[Route, ...]:
    """Return the available routes, the shortest first: if one fails, the export tries the next.

    Args:
        kind: The source kind.
        target: The target.
        precision: The precision that the routes must produce.
        edges: The bridges and other conversions between source kinds.
    """
    return tuple(route for route in find_routes(kind, target, precision, edges) if not why_withheld(route, precision))


def why_unreachable(kind: str, target: Target, precision: str, edges: Iterable[Edge]) -> str | None:
    """Return why no route leads from a source kind to a target at a precision, or None if one does.

    Args:
        kind: The source kind.
        target: The target.
        precision: The precision.
        edges: The bridges and other conversions between source kinds.
    """
    reasons = [why_withheld(route, precision) for route in find_routes(kind, target, precision, edges)]
    if None in reasons:
        return None
    direct = [name for name, precisions in target.routes.items() if precision in precisions]
    return reasons[0] if reasons else f"only {' or '.join(direct)} can be converted to {target.name}:{precision}"


def routes_by_precision(kind: str, target: Target, edges: Iterable[Edge]) -> dict[str, tuple[Route, ...]]:
    """Return the available routes by precision, in the target's order; precisions without a route are missing.

    Args:
        kind: The source kind.
        target: The target.
        edges: The bridges and other conversions between source kinds.
    """
    edges = tuple(edges)
    available = {precision: available_routes(kind, target, precision, edges) for precision in target.precisions}
    return {precision: routes for precision, routes in available.items() if routes}


def parse_route(text: str) -> tuple[str, ...]:
    """Return the steps of a route.

    Args:
        text: `keras,torch,tflite` or `keras -> torch -> tflite`.
    """
    return tuple(step.strip() for step in text.replace("->", ",").split(","))


def default_targets() -> tuple[Target, ...]:
    """Return the targets that are meant where none is named."""
    return tuple(target for target in targets().values() if not target.only_named)


def parse_selection(texts: Iterable[str], precision: str | None) -> tuple[tuple[Target, str | None], ...]:
    """Parse the user's targets.

    Args:
        texts: Targets or variants, such as `tflite` or `tflite:int8`. If there are none, all targets that have
            `precision` are selected, but for those that must be named.
        precision: The precision of targets that are named without one; None for their default ones.

    Returns:
        Each target with a precision, or None for its default precisions.

    Raises:
        InputError: A target or a precision is unknown, a named target does not have the precision, a text contradicts
            `precision`, or a variant is a tuned one, which only its recipe describes.
    """
    texts = tuple(texts)
    if precision is not None:
        parse_precision(precision)
    if not texts:
        return tuple(
            (target, precision) for target in default_targets() if precision is None or precision in target.precisions
        )
    selection: list[tuple[Target, str | None]] = []
    for text in texts:
        name, colon, suffix = text.partition(":")
        variant = Variant.parse(text) if colon else None
        if variant is not None and variant.tag:
            raise InputError(
                f"{text} is converted with a recipe: pass the recipe file, such as"
                f" build/MODEL/SOURCE/{variant.slug}/recipe.json, instead of the target",
                parameters=("recipe",),
            )
        target_precision = precision if variant is None else variant.precision
        if suffix and precision and suffix != precision:
            raise InputError(f"the target {text} and the precision {precision} contradict each other")
        target = load_target(name)
        if target_precision is not None and target_precision not in target.precisions:
            available = ", ".join(target.precisions)
            raise InputError(f"target {name} has no precision {target_precision}; it has: {available}")
        selection.append((target, target_precision))
    return tuple(selection)


def select_variants(
    kinds: Iterable[str],
    selection: Iterable[tuple[Target, str | None]],
    *,
    kinds_named: bool,
    targets_named: bool,
) -> tuple[tuple[str, Variant, tuple[Route, ...]], ...]:
    """Select the variants of one model to export.

    Args:
        kinds: The source kinds of the model.
        selection: The targets, each with a precision or None for its default ones.
        kinds_named: Whether the user named the source kinds; then each of them must reach the named targets.
        targets_named: Whether the user named the targets; then at least one source kind must reach each of them.

    Returns:
        Source kind, variant and its routes, the shortest first.

    Raises:
        InputError: No route leads to a named target; the message lists the available precisions by source kind.
    """
    all_edges, kinds = edges(), tuple(kinds)
    selected: dict[tuple[str, Variant], tuple[Route, ...]] = {}
    for target, precision in selection:
        wanted = target.default_precisions if precision is None else (precision,)
        by_kind = {kind: _at_precisions(routes_by_precision(kind, target, all_edges), wanted) for kind in kinds}
        unreachable = [kind for kind, by_precision in by_kind.items() if not by_precision]
        if targets_named and (len(unreachable) == len(kinds) or (kinds_named and unreachable)):
            raise _unreachable_error(target, precision, unreachable, all_edges)
        for kind, by_precision in by_kind.items():
            selected |= {(kind, Variant(target.name, name)): routes for name, routes in by_precision.items()}
    return tuple((kind, variant, routes) for (kind, variant), routes in selected.items())


def _at_precisions(
    by_precision: Mapping[str, tuple[Route, ...]], precisions: Iterable[str]
) -> dict[str, tuple[Route, ...]]:
    return {name: by_precision[name] for name in precisions if name in by_precision}


def _unreachable_error(
    target: Target, precision: str | None, kinds: Iterable[str], edges: Iterable[Edge]
) -> InputError:
    variant = f"{target.name}:{precision}" if precision else target.name
    available = "; ".join(
        f"{kind}: {', '.join(precisions)}" for kind, precisions in _precisions_by_kind(target, edges).items()
    )
    return InputError(f"no route from {' or '.join(kinds)} to {variant}; available: {available or 'none'}")


def _precisions_by_kind(target: Target, edges: Iterable[Edge]) -> dict[str, list[str]]:
    precisions = {kind: list(routes_by_precision(kind, target, edges)) for kind in SOURCES.names()}
    return {kind: names for kind, names in precisions.items() if names}
