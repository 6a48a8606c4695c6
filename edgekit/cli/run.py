"""edgekit run"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._common import (
    CommandSession,
    Mlflow,
    common,
    mlflow_options,
    plan_of,
    rendered,
    timeout_option,
    waiting,
)

if TYPE_CHECKING:
    from edgekit.core.build.graph import Graph
    from edgekit.core.build.plan_cache import CachedPlan
    from edgekit.core.build.run_state import RunResult, RunState, StepResult
    from edgekit.stages.tracking.settings import Tracking


@click.command("run", short_help="Run the pipeline of edgekit.toml, incrementally.")
@click.argument("steps", nargs=-1, metavar="[STEP]...")
@click.option("--explain", is_flag=True, help="Print why each step runs.")
@click.option("--dry-run", is_flag=True, help="Print what would run, and run nothing.")
@click.option("--force", is_flag=True, help="Run the steps even if they are up to date.")
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Maximum number of parallel steps (default: from cores and memory)."
)
@click.option("--dask", metavar="ADDRESS", help="Run steps on the workers of this Dask scheduler (tcp://host:8786).")
@click.option(
    "--store",
    metavar="URL",
    help="With --dask: exchange files through this fsspec URL (s3://...) instead of a shared folder.",
)
@click.option("--emit-makefile", is_flag=True, help="Print the steps as make rules.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of edgekit.toml.")
@mlflow_options
@timeout_option
@common
def command(
    session: CommandSession,
    steps: tuple[str, ...],
    explain: bool,
    dry_run: bool,
    force: bool,
    jobs: int | None,
    dask: str | None,
    store: str | None,
    emit_makefile: bool,
    schema: bool,
    mlflow: Mlflow,
    timeout: float,
) -> int:
    """Run the pipeline of edgekit.toml: train, export, validate, bench, check, report; without a STEP, all steps.

    A step runs again only if one of its inputs has changed: the content of a file, an option, or the version of a tool.
    Steps run in parallel; steps that measure run alone. If a step fails, only the steps that depend on it are skipped.
    A second run in the same folder waits for the first.

    STEP is the name of a step, or a pattern such as 'export *'; the steps that it depends on run too.

    With --mlflow, the results are logged to MLflow when the steps have ended, as with [mlflow] in edgekit.toml.

    With --dask, the workers of the cluster train, export and validate. They need the same packages, and this folder
    under the same path or --store. Benchmarks and checks run on this machine. If a worker dies, another one repeats its
    step.

    \b
    Example:
      edgekit run
      edgekit run --explain --dry-run
      edgekit run 'validate detector/*'
      edgekit run --emit-makefile > pipeline.mk
      edgekit run --dask tcp://10.0.0.5:8786
      edgekit run --mlflow http://127.0.0.1:5000
    """
    if store and not dask:
        raise click.UsageError("--store needs --dask")
    if schema:
        from edgekit.config.project import schema as made

        click.echo(json.dumps(made(), indent=2))
        return 0
    book = _book(session)
    planned, kept = plan_of(session, book.digests, book.records.plan_file)
    if emit_makefile:
        from edgekit.core.build.makefile_export import makefile

        click.echo(makefile(planned.graph, session.project.root, "edgekit.toml"), nl=False)
        return 0
    chosen = _tracked(planned.graph.needed(steps), mlflow.tracking(session))
    if dry_run:
        return _dry_run(session, chosen, book, force)
    with book.records.locked(waiting):
        if not kept:
            _keep(session, planned, book)
        ran = _execute(session, chosen, book, _RunFlags(force, jobs, timeout, dask, store or ""))
    _answer(session, ran, explain)
    return ran.exit_code


def _tracked(graph: Graph, tracking: Tracking | None) -> Graph:
    """With a last step that logs into MLflow, where it was asked for."""
    if tracking is None:
        return graph
    from edgekit.stages.tracking.settings import with_tracking

    return with_tracking(graph, tracking)


def _book(session: CommandSession) -> RunState:
    from edgekit.core.build.run_state import RunState
    from edgekit.core.build.step_records import StepRecords

    records = StepRecords(session.project.build)
    return RunState(records, records.digests(session.project.root))


def _keep(session: CommandSession, planned: CachedPlan, book: RunState) -> None:
    from edgekit.core.build import plan_cache as plans
    from edgekit.devices.host_machine import description

    plans.save(book.records.plan_file, planned, session.project.root, book.digests, description())


@dataclass(frozen=True)
class _RunFlags:
    """What the options say of how to carry it out."""

    forced: bool
    jobs: int | None
    timeout_s: float
    dask: str | None
    store: str


def _execute(session: CommandSession, graph: Graph, book: RunState, wanted: _RunFlags) -> RunResult:
    """Nothing is started, and little imported, where nothing has to run."""
    from edgekit.core.build.run_state import UP_TO_DATE, RunResult, dry_run

    foreseen = dry_run(graph, book, wanted.forced)
    if all(item.state == UP_TO_DATE for item in foreseen):
        book.digests.save()
        return RunResult(foreseen, 0.0)
    from edgekit.devices.host_machine import available_memory_bytes
    from edgekit.stages.concurrency import PROCESS_MEMORY_BYTES, default_parallelism
    from edgekit.stages.pipeline.scheduler import RunOptions
    from edgekit.stages.pipeline.scheduler import run_graph as carry_out

    memory = available_memory_bytes()
    jobs = wanted.jobs or default_parallelism(memory)
    with session.context(wanted.timeout_s, workers=max(jobs + 1, memory // PROCESS_MEMORY_BYTES)) as context:
        how = RunOptions(jobs, memory, wanted.forced, rendered)
        if wanted.dask is None:
            return carry_out(context, graph, book, how)
        from edgekit.stages.cluster.dask_backend import DaskCluster

        with DaskCluster(wanted.dask, context, graph, book, wanted.store, wanted.timeout_s) as cluster:
            return carry_out(context, graph, book, replace(how, cluster=cluster))


def _dry_run(session: CommandSession, graph: Graph, book: RunState, force: bool) -> int:
    from edgekit.core.build.run_state import DONE, dry_run

    outcomes = dry_run(graph, book, force)
    lines = _reasons(outcomes)
    count = sum(item.state == DONE for item in outcomes)
    lines.append(f"{count} of {len(outcomes)} steps would run\n")
    session.answer({"steps": [_data(item) for item in outcomes]}, "".join(lines))
    return 0


def _reasons(outcomes: tuple[StepResult, ...]) -> list[str]:
    from edgekit.core.build.run_state import UP_TO_DATE

    return [
        f"{item.step}: {'; '.join(item.reasons)}\n" if item.state != UP_TO_DATE else f"{item.step}: up to date\n"
        for item in outcomes
    ]


def _data(item: StepResult) -> dict[str, Any]:
    return {
        "step": item.step,
        "kind": item.kind,
        "state": item.state,
        "reasons": list(item.reasons),
        "seconds": round(item.seconds, 3),
        "exit_code": item.code,
        "detail": item.detail,
    }


def _answer(session: CommandSession, ran: RunResult, explain: bool) -> None:
    from edgekit.core.build.run_state import BLOCKED, DONE, FAILED
    from edgekit.core.units import format_seconds

    count = {state: sum(item.state == state for item in ran.outcomes) for state in (DONE, FAILED, BLOCKED)}
    data = {
        "passed": ran.exit_code == 0,
        "steps": [_data(item) for item in ran.outcomes],
        "wall_s": round(ran.wall_s, 3),
        "one_after_another_s": round(ran.sequential_s, 3),
    }
    lines = _reasons(ran.outcomes) if explain else []
    lines += [f"FAILED  {item.detail}\n" for item in ran.outcomes if item.code == 1]
    if not (count[DONE] or count[FAILED]):
        lines.append(f"nothing to do: {len(ran.outcomes)} steps are up to date\n")
    else:
        rest = f", {count[FAILED]} failed, {count[BLOCKED]} not started" if count[FAILED] else ""
        took, alone = format_seconds(ran.wall_s), format_seconds(ran.sequential_s)
        lines.append(
            f"{count[DONE]} of {len(ran.outcomes)} steps done{rest} in {took}; one after another: about {alone}\n"
        )
    session.answer(data, "".join(lines))
