"""Mutate every kind of file that edgekit reads, for some minutes: `python fuzz.py [SECONDS [SEED [FORMAT ...]]]`.

Prints a table of outcomes and one line a fault, and ends with 1 if there are faults. Inputs of faults are kept in
build/fuzz; a fault that was mended moves to tests/fixtures/fuzz, where the tests read it again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from _helpers.fuzzing.campaign import Campaign, default_faults


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    start = time.monotonic()
    with Campaign(default_faults()) as campaign:
        print(f"seeds ready after {time.monotonic() - start:.0f} s; fuzzing for {seconds:g} s, seed {seed}", flush=True)
        outcome = campaign.run(seconds=seconds, cases=None, seed=seed, only=tuple(sys.argv[3:]))
    print(f"{'format':22} {'read':>8} {'refused':>8} {'crashed':>8} {'faults':>8} {'slowest':>8}")
    for name, counts in outcome.cases.items():
        numbers = " ".join(f"{counts[key]:8d}" for key in ("read", "refused", "crashed", "fault"))
        print(f"{name:22} {numbers} {outcome.slowest_s[name]:6.2f} s")
    print(f"{outcome.total} cases, {len(outcome.faults)} faults")
    for fault in outcome.faults[:200]:
        print(fault.encode("ascii", "backslashreplace").decode())
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
