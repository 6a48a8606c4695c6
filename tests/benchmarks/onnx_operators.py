"""How much of ONNX does the bridge to PyTorch run? ONNX's own node tests by operator; prints a table and the total.

`make onnx-operators`. Counted are tests with a float input or output, of opset 13 to 22; what is left out, and how the
outcome is judged, is in tests/onnx_backend.py, which the test suite holds to its floor as well.
"""

from __future__ import annotations

from collections import defaultdict

from _helpers.onnx_backend import Result, run_all


def main() -> None:
    """Prints a line an operator, then the total."""
    results = run_all()
    rows: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if result.counts:
            rows[result.operator].append(result)
    width = max(map(len, rows))
    for operator in sorted(rows):
        passed = sum(result.outcome == "passed" for result in rows[operator])
        missed = ", ".join(result.name.removeprefix("test_") for result in rows[operator] if result.outcome != "passed")
        print(f"{operator:{width}}  {passed:3} / {len(rows[operator]):3}  {missed}".rstrip())
    counted = [result for result in results if result.counts]
    for what, chosen in (("float tests of opset 13 to 22", counted), ("tests of any type and opset", results)):
        passed = sum(result.outcome == "passed" for result in chosen)
        print(f"{what}: {passed} of {len(chosen)} pass, {passed / len(chosen):.1%}")


if __name__ == "__main__":
    main()
