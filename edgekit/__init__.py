"""edgekit converts trained networks for edge devices and verifies that each still computes the same results.

The functions of `edgekit.api` are available here. They are imported on first use: `import edgekit` itself imports no
framework, no numpy and no command line.
"""

from edgekit._version import __version__

# Type checkers take it as true under this name; importing it from typing would be most of this module's cost.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from edgekit.api import Session, bench, check, compare, export, load_artifact, quantization_aware, validate
else:
    # Hidden from type checkers: to them, a module with __getattr__ has every attribute.
    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from edgekit import api

        return globals().setdefault(name, getattr(api, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Session",
    "__version__",
    "bench",
    "check",
    "compare",
    "export",
    "load_artifact",
    "quantization_aware",
    "validate",
]
