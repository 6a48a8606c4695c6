"""Export a small network, validate and measure it, and judge it against budgets, all in Python."""

import argparse
import sys
from pathlib import Path

import edgekit
from edgekit.core.errors import EdgekitError
from edgekit.core.events import Event, FailEvent, FinishEvent


def show(event: Event) -> None:
    """Print each step that ended."""
    if isinstance(event, (FinishEvent, FailEvent)):
        print(f"{event.step}: {event.detail}")


def tour(root: Path) -> bool:
    with edgekit.Session(root, on_event=show) as session:
        # `linear` is a reference model: it is trained before its first export.
        artifacts = session.export("linear", framework="keras", target=("tflite:float32", "onnx:float32"))
        for artifact in artifacts:
            print(f"{artifact.label}: {artifact.manifest.size_bytes} bytes, by {' -> '.join(artifact.manifest.route)}")

        for validation in session.validate(artifacts):
            print(f"{validation.variant}: {'passed' if validation.passed else validation.failures}")

        for measurement in session.bench(artifacts, min_duration_s=0.05):
            print(f"{measurement.variant}: {measurement.latency_ms['host']:.4f} ms on this host")

        tflite, onnx = artifacts
        golden = tflite.golden()
        equivalence = session.compare(onnx, tflite, samples=golden.inputs)
        print(f"TFLite and ONNX are {equivalence.verdict}")

        result = session.check(artifacts, max_size="10 KB", max_latency_ms={"host": 50.0})
        for verdict in result.verdicts:
            print("passed" if verdict.passed else "FAILED", verdict.sentence)
        return result.passed and equivalence.verdict == "equal"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="the project's folder")
    try:
        return 0 if tour(parser.parse_args().root) else 1
    except EdgekitError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
