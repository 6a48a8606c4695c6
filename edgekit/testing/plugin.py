"""The pytest plugin: fixtures `edgekit_figures` and `edgekit_export`, marker `edgekit_slow`, options `--edgekit-*`.

Nothing heavy is imported before a test requests it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

# Next to the test file, so that both are committed and reviewed together.
FIGURES_FILE = "edgekit-figures.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the group `edgekit`."""
    group = parser.getgroup("edgekit")
    group.addoption(
        "--edgekit-update", action="store_true", help=f"accept the figures of this run: write them to {FIGURES_FILE}"
    )
    group.addoption("--edgekit-skip-slow", action="store_true", help="skip tests marked edgekit_slow")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker `edgekit_slow`."""
    config.addinivalue_line("markers", "edgekit_slow: converts, runs or measures models; --edgekit-skip-slow skips it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests marked `edgekit_slow` with `--edgekit-skip-slow`."""
    if config.getoption("--edgekit-skip-slow"):
        skip = pytest.mark.skip(reason="--edgekit-skip-slow")
        for test in items:
            if "edgekit_slow" in test.keywords:
                test.add_marker(skip)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the workers."""
    from edgekit.testing import _session

    _session.close()


class Figures:
    """The accepted figures in edgekit-figures.json next to the test file.

    Attributes:
        path: Path of the JSON file.
        update: Whether `check` accepts and writes figures in place of comparing them.
    """

    def __init__(self, path: Path, update: bool) -> None:
        self.path = path
        self.update = update

    def check(self, name: str, figures: Mapping[str, float], *, tolerance: float = 0.01) -> None:
        """Assert that no figure exceeds its accepted value by more than a relative tolerance.

        With `--edgekit-update` the figures are accepted and written instead.

        Args:
            name: Name of the model or variant.
            figures: Figures of which less is better, such as bytes, milliseconds or a drop.
            tolerance: Largest allowed increase as a share of the accepted value.

        Raises:
            AssertionError: A figure increased, or has no accepted value.
        """
        __tracebackhide__ = True
        accepted = self._read()
        if self.update:
            self._write({**accepted, name: dict(figures)})
            return
        previous = accepted.get(name)
        assert previous is not None, (
            f"{self.path}: no accepted figures of {name}; accept these with: pytest --edgekit-update"
        )
        problems = [
            f"{key}: {value:g}, but accepted is {previous[key]:g} ({_format_change(value, previous[key])})"
            for key, value in figures.items()
            if key in previous and value > previous[key] + tolerance * abs(previous[key])
        ]
        problems += [
            f"{key}: {value:g}, but no accepted value" for key, value in figures.items() if key not in previous
        ]
        assert not problems, "\n  ".join([f"{name} is worse than the figures in {self.path.name}:", *problems])

    def _read(self) -> dict[str, dict[str, float]]:
        if not self.path.is_file():
            return {}
        try:
            accepted: dict[str, dict[str, float]] = json.loads(self.path.read_text())
        except ValueError as error:
            raise AssertionError(f"{self.path}: this file is not valid JSON ({error})") from None
        return accepted

    def _write(self, data: dict[str, dict[str, float]]) -> None:
        from edgekit.core.environment.atomic_files import to_json, write_output

        write_output(self.path, to_json(data))


def _format_change(value: float, previous: float) -> str:
    return f"{100 * (value - previous) / previous:+.1f} %" if previous else "it was 0"


@pytest.fixture
def edgekit_figures(request: pytest.FixtureRequest) -> Figures:
    """Return the accepted figures: `edgekit_figures.check("net int8", {"size": 12345, "drop": 0.004})`."""
    return Figures(request.path.parent / FIGURES_FILE, bool(request.config.getoption("--edgekit-update")))


@pytest.fixture(scope="session")
def edgekit_export(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Return a function that exports a model once per session and returns the artifact's folder.

    Example: `edgekit_export("net.onnx", "tflite:int8", sample="inputs.npz")`. The options are those of
    `edgekit export`: weights, inputs, sample, calibration, name, dims, layout.
    """
    from edgekit.testing._export import Exporter

    yield Exporter(tmp_path_factory.mktemp("edgekit")).export
