"""What has to be done, and how it went: the step graph beside what was kept of earlier runs."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.build.file_digests import FileDigests
from edgekit.core.build.graph import Graph, Step, StepKey, StepKind, rerun_reasons
from edgekit.core.build.step_records import StepRecords
from edgekit.core.environment.project import portable_path
from edgekit.core.errors import EXIT_OK, InputError

DONE, UP_TO_DATE, FAILED, BLOCKED = "done", "up to date", "failed", "blocked"


@dataclass(frozen=True)
class StepResult:
    """How a step ended: done, up to date, failed, or blocked by a failed one. `reasons` say why it ran.

    `waited_s` of its `seconds` it was ready to run and had no core, because of the steps beside it or of other work.
    """

    step: str
    kind: StepKind
    state: str
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    code: int = EXIT_OK
    detail: str = ""
    cpu_wait_s: float = 0.0


@dataclass(frozen=True)
class RunResult:
    """All outcomes, and how long it took in all."""

    outcomes: tuple[StepResult, ...]
    wall_s: float

    @property
    def sequential_s(self) -> float:
        """About what it would have taken one step after another: the steps' times, less what they waited for a core."""
        return sum(item.seconds - item.cpu_wait_s for item in self.outcomes if item.state in (DONE, FAILED))

    @property
    def exit_code(self) -> int:
        """The gravest."""
        return max((item.code for item in self.outcomes), default=EXIT_OK)


@dataclass
class RunState:
    """What the steps' files are, and what was kept of their latest run."""

    records: StepRecords
    digests: FileDigests

    def key(self, step: Step) -> StepKey:
        """As it stands."""
        try:
            files = {
                portable_path(str(read)): self.digests.of_part(read.path, read.only, read.without)
                for read in step.reads
            }
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {(error.strerror or str(error)).lower()}") from None
        return StepKey(files, dict(step.values))

    def reasons(self, step: Step, key: StepKey, forced: bool) -> tuple[str, ...]:
        """Why the step has to run; nothing when it is up to date."""
        found = rerun_reasons(key, self.records.load(step.name), self.digests.of)
        return tuple(found or (["it was asked for again"] if forced else []))

    def up_to_date(self, step: Step) -> StepResult:
        """What the record of a step says that need not run: a check that failed is no less failed for being old."""
        record = self.records.load(step.name)
        assert record is not None  # there would be a reason to run it otherwise
        return StepResult(step.name, step.kind, UP_TO_DATE, code=record.code, detail=record.detail)


def dry_run(graph: Graph, book: RunState, forced: bool) -> tuple[StepResult, ...]:
    """What a run would do, without doing it: a step whose predecessor runs is taken to run too."""
    found: dict[str, StepResult] = {}
    for step in graph.steps:
        why = book.reasons(step, book.key(step), forced)
        before = [name for name in step.after if name in found and found[name].state == DONE]
        if not why and before:
            why = (f"{before[0]} runs before it, and may write something else",)
        found[step.name] = StepResult(step.name, step.kind, DONE, why) if why else book.up_to_date(step)
    return tuple(found.values())
