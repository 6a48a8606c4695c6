"""Which steps have to run, judged by the records of earlier runs, and the results of a run."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.core.build.file_digests import FileDigests
from edgekit.core.build.graph import Graph, Step, StepKey, StepKind, rerun_reasons
from edgekit.core.build.step_records import StepRecords
from edgekit.core.environment.project import portable_path
from edgekit.core.errors import EXIT_OK, InputError

# The states in which a step ends, as in the JSON of `edgekit run`.
DONE, UP_TO_DATE, FAILED, BLOCKED = "done", "up to date", "failed", "blocked"


@dataclass(frozen=True)
class StepResult:
    """The result of a step in a run.

    Attributes:
        step: The step's name.
        kind: The step's kind.
        state: `DONE`, `UP_TO_DATE`, `FAILED`, or `BLOCKED` by a step that failed.
        reasons: Why the step had to run.
        seconds: The wall time of the step, in s.
        code: The exit code of the step.
        detail: A summary of the result, or the error.
        cpu_wait_s: The part of `seconds` for which the step was runnable but had no core, in s.
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
    """The result of a run.

    Attributes:
        step_results: The results of the steps.
        wall_s: The wall time of the run, in s.
    """

    step_results: tuple[StepResult, ...]
    wall_s: float

    @property
    def sequential_s(self) -> float:
        """The estimated wall time without parallel steps, in s: the steps' times, less their waiting for a core."""
        return sum(result.seconds - result.cpu_wait_s for result in self.step_results if result.state in (DONE, FAILED))

    @property
    def exit_code(self) -> int:
        """The most severe exit code of all steps."""
        return max((result.code for result in self.step_results), default=EXIT_OK)


@dataclass
class RunState:
    """The records of the steps' latest runs and the current content of their files.

    Attributes:
        records: One record for each step that has run.
        digests: The digests of the files as they are now.
    """

    records: StepRecords
    digests: FileDigests

    def key(self, step: Step) -> StepKey:
        """Compute the current key of a step.

        Args:
            step: The step.

        Returns:
            The digests of its inputs, by portable path, and its values.

        Raises:
            InputError: An input exists, but cannot be read.
        """
        try:
            files = {
                portable_path(str(read)): self.digests.of_part(read.path, read.only, read.without)
                for read in step.reads
            }
        except OSError as error:
            raise InputError(f"cannot read {error.filename}: {(error.strerror or str(error)).lower()}") from None
        return StepKey(files, dict(step.values))

    def reasons(self, step: Step, key: StepKey, forced: bool) -> tuple[str, ...]:
        """Return why a step has to run.

        Args:
            step: The step.
            key: Its current key.
            forced: Whether to run it even if it is up to date.

        Returns:
            The reasons in words; none if the step is up to date and not forced.

        Raises:
            OSError: An output of the step exists, but cannot be read.
        """
        reasons = rerun_reasons(key, self.records.load(step.name), self.digests.of)
        return tuple(reasons or (["--force was given"] if forced else []))

    def up_to_date(self, step: Step) -> StepResult:
        """Return the result of a step that is up to date.

        Args:
            step: A step for which `reasons` returned none.

        Returns:
            The exit code and detail of its latest run: a check that failed then still counts as failed.
        """
        record = self.records.load(step.name)
        assert record is not None  # a missing record would have been a reason to run the step
        return StepResult(step.name, step.kind, UP_TO_DATE, code=record.code, detail=record.detail)


def dry_run(graph: Graph, state: RunState, forced: bool) -> tuple[StepResult, ...]:
    """Predict what a run would do, without running a step.

    Args:
        graph: The steps.
        state: The state of earlier runs.
        forced: Whether up-to-date steps would run too.

    Returns:
        One result for each step, `DONE` or `UP_TO_DATE`. A step counts as `DONE` if one that it depends on would run;
        the real run skips it if that one reproduces its previous output.

    Raises:
        InputError: An input of a step exists, but cannot be read.
        OSError: An output of a step exists, but cannot be read.
    """
    results: dict[str, StepResult] = {}
    for step in graph.steps:
        reasons = state.reasons(step, state.key(step), forced)
        running = [name for name in step.after if name in results and results[name].state == DONE]
        if not reasons and running:
            reasons = (f"{running[0]} runs before it and may change its input",)
        results[step.name] = StepResult(step.name, step.kind, DONE, reasons) if reasons else state.up_to_date(step)
    return tuple(results.values())
