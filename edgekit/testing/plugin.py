"""The pytest plugin, installed with edgekit: the fixtures `edgekit_figures` and `edgekit_export`, the marker
`edgekit_slow`, and the option `--edgekit-update`. Nothing heavy is imported before a test asks for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

FILE = "edgekit-figures.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the group `edgekit`."""
    group = parser.getgroup("edgekit")
    group.addoption(
        "--edgekit-update", action="store_true", help=f"accept the figures of this run: write them to {FILE}"
    )
    group.addoption("--edgekit-skip-slow", action="store_true", help="skip tests marked edgekit_slow")


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker."""
    config.addinivalue_line("markers", "edgekit_slow: converts, runs or measures models; --edgekit-skip-slow skips it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips the slow ones where that was asked for."""
    if config.getoption("--edgekit-skip-slow"):
        skip = pytest.mark.skip(reason="--edgekit-skip-slow")
        for item in items:
            if "edgekit_slow" in item.keywords:
                item.add_marker(skip)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the workers."""
    from edgekit.testing import _session

    _session.close()


class Figures:
    """The last accepted figures, in edgekit-figures.json beside the test file."""

    def __init__(self, path: Path, update: bool) -> None:
        self.path = path
        self.update = update

    def check(self, name: str, figures: Mapping[str, float], *, tolerance: float = 0.01) -> None:
        """That each figure is no larger than the accepted one by more than `tolerance`, a share of it.

        Give figures of which less is better: bytes, milliseconds, a drop. With --edgekit-update they are accepted and
        written. Raises AssertionError that shows each figure that grew, or that none was accepted yet.
        """
        __tracebackhide__ = True
        accepted = self._read()
        if self.update:
            self._write({**accepted, name: dict(figures)})
            return
        known = accepted.get(name)
        assert known is not None, (
            f"{self.path} has no figures of {name} yet; accept these with: pytest --edgekit-update"
        )
        grown = [
            f"{key}: {value:g} where {known[key]:g} was accepted ({_share(value, known[key])})"
            for key, value in figures.items()
            if key in known and value > known[key] + tolerance * abs(known[key])
        ]
        grown += [f"{key}: {value:g}, which was never accepted" for key, value in figures.items() if key not in known]
        assert not grown, "\n  ".join([f"{name} is worse than the figures in {self.path.name}:", *grown])

    def _read(self) -> dict[str, dict[str, float]]:
        if not self.path.is_file():
            return {}
        try:
            found: dict[str, dict[str, float]] = json.loads(self.path.read_text())
        except ValueError as error:
            raise AssertionError(f"{self.path}: this is not valid JSON ({error})") from None
        return found

    def _write(self, data: dict[str, dict[str, float]]) -> None:
        from edgekit.core.environment.atomic_files import write_json

        write_json(self.path, data)


def _share(value: float, known: float) -> str:
    return f"{100 * (value - known) / known:+.1f} %" if known else "it was 0"


@pytest.fixture
def edgekit_figures(request: pytest.FixtureRequest) -> Figures:
    """Regression figures: `edgekit_figures.check("net int8", {"size": 12345, "drop": 0.004})`."""
    return Figures(request.path.parent / FILE, bool(request.config.getoption("--edgekit-update")))


@pytest.fixture(scope="session")
def edgekit_export(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """`edgekit_export("net.onnx", "tflite:int8", sample="inputs.npz")` is the artifact's folder, made once a session.

    The options are those of `edgekit export`: weights, inputs, sample, calibration, name, dims, layout.
    """
    from edgekit.testing._export import Exporter

    yield Exporter(tmp_path_factory.mktemp("edgekit")).export
