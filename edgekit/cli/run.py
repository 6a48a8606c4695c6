"""edgekit run"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli._common import MlflowOptions, load_plan, mlflow_options, print_waiting, render_report, timeout_option
from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.core.build.graph import Graph
    from edgekit.core.build.plan_cache import CachedPlan
    from edgekit.core.build.run_state import RunResult, RunState, StepResult
    from edgekit.stages.tracking.settings import Tracking


_log = logging.getLogger(__name__)


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
@common_options
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
    mlflow: MlflowOptions,
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
        from edgekit.config.project import schema as project_schema

        click.echo(json.dumps(project_schema(), indent=2))
        return 0
    run_state = _open_run_state(session)
    plan, is_cached = load_plan(session, run_state.digests, run_state.records.plan_file)
    if emit_makefile:
        from edgekit.core.build.makefile_export import makefile

        click.echo(makefile(plan.graph, session.project.root, "edgekit.toml"), nl=False)
        return 0
    graph = _with_tracking(plan.graph.needed(steps), mlflow.tracking(session))
    if dry_run:
        return _dry_run(session, graph, run_state, force)
    with run_state.records.locked(print_waiting):
        if not is_cached:
            _save_plan(session, plan, run_state)
        result = _execute(session, graph, run_state, _RunFlags(force, jobs, timeout, dask, store or ""))
    _print_run(session, result, explain)
    return result.exit_code


def _with_tracking(graph: Graph, tracking: Tracking | None) -> Graph:
    """Add a last step that logs to MLflow, unless `tracking` is None."""
    if tracking is None:
        return graph
    from edgekit.stages.tracking.settings import with_tracking

    return with_tracking(graph, tracking)


def _open_run_state(session: CommandSession) -> RunState:
    from edgekit.core.build.run_state import RunState
    from edgekit.core.build.step_records import StepRecords

    records = StepRecords(session.project.build)
    return RunState(records, records.digests(session.project.root))


def _save_plan(session: CommandSession, plan: CachedPlan, run_state: RunState) -> None:
    from edgekit.core.build import plan_cache
    from edgekit.devices.host_machine import description

    plan_cache.save(run_state.records.plan_file, plan, session.project.root, run_state.digests, description())


@dataclass(frozen=True)
class _RunFlags:
    """Options of a run.

    Attributes:
        forced: Whether steps run even if they are up to date.
        jobs: Maximum number of parallel steps; None derives it from cores and memory.
        timeout_s: Time limit of one step, in seconds.
        dask: Address of a Dask scheduler; None runs all steps on this machine.
        store: URL that files are exchanged through; empty with a shared folder.
    """

    forced: bool
    jobs: int | None
    timeout_s: float
    dask: str | None
    store: str


def _execute(session: CommandSession, graph: Graph, run_state: RunState, flags: _RunFlags) -> RunResult:
    """Run the steps of the graph that are not up to date.

    If all are up to date, no worker is started and no framework module is imported.
    """
    from edgekit.core.build.run_state import UP_TO_DATE, RunResult, dry_run

    expected = dry_run(graph, run_state, flags.forced)
    if all(step.state == UP_TO_DATE for step in expected):
        for step in expected:
            _log.info("up to date: its inputs, values and outputs are those of its last run", extra={"step": step.step})
        run_state.digests.save()
        return RunResult(expected, 0.0)
    from edgekit.core.environment.bounded_files import available_memory_bytes
    from edgekit.stages.concurrency import PROCESS_MEMORY_BYTES, default_parallelism
    from edgekit.stages.pipeline.scheduler import RunOptions, run_graph

    memory = available_memory_bytes()
    jobs = flags.jobs or default_parallelism(memory)
    with session.context(flags.timeout_s, workers=max(jobs + 1, memory // PROCESS_MEMORY_BYTES)) as context:
        options = RunOptions(jobs, memory, flags.forced, render_report)
        if flags.dask is None:
            return run_graph(context, graph, run_state, options)
        from edgekit.stages.cluster.dask_backend import DaskCluster

        with DaskCluster(flags.dask, context, graph, run_state, flags.store, flags.timeout_s) as cluster:
            return run_graph(context, graph, run_state, replace(options, cluster=cluster))


def _dry_run(session: CommandSession, graph: Graph, run_state: RunState, force: bool) -> int:
    from edgekit.core.build.run_state import DONE, dry_run

    results = dry_run(graph, run_state, force)
    lines = _reason_lines(results)
    count = sum(result.state == DONE for result in results)
    lines.append(line(f"{count} of {len(results)} steps would run"))
    session.print_result({"steps": [_step_data(result) for result in results]}, "".join(lines))
    return 0


def _reason_lines(results: tuple[StepResult, ...]) -> list[str]:
    from edgekit.core.build.run_state import UP_TO_DATE

    return [
        line(f"{result.step}: {'; '.join(result.reasons)}")
        if result.state != UP_TO_DATE
        else line(f"{result.step}: up to date")
        for result in results
    ]


def _step_data(result: StepResult) -> dict[str, Any]:
    return {
        "step": result.step,
        "kind": result.kind,
        "state": result.state,
        "reasons": list(result.reasons),
        "seconds": round(result.seconds, 3),
        "exit_code": result.code,
        "detail": result.detail,
    }


def _print_run(session: CommandSession, run_result: RunResult, explain: bool) -> None:
    from edgekit.core.build.run_state import BLOCKED, DONE, FAILED
    from edgekit.core.units import format_seconds

    count = {state: sum(step.state == state for step in run_result.step_results) for state in (DONE, FAILED, BLOCKED)}
    data = {
        "passed": run_result.exit_code == 0,
        "steps": [_step_data(step) for step in run_result.step_results],
        "wall_s": round(run_result.wall_s, 3),
        "one_after_another_s": round(run_result.sequential_s, 3),
    }
    lines = _reason_lines(run_result.step_results) if explain else []
    lines += [line(f"FAILED  {step.detail}") for step in run_result.step_results if step.code == 1]
    total = len(run_result.step_results)
    if not (count[DONE] or count[FAILED]):
        lines.append(line(f"nothing to do: {total} steps are up to date"))
    else:
        skipped = f", {count[FAILED]} failed, {count[BLOCKED]} not started" if count[FAILED] else ""
        wall, sequential = format_seconds(run_result.wall_s), format_seconds(run_result.sequential_s)
        lines.append(
            line(f"{count[DONE]} of {total} steps done{skipped} in {wall}; one after another: about {sequential}")
        )
    session.print_result(data, "".join(lines))
