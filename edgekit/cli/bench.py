"""edgekit bench"""

from __future__ import annotations

import click

from edgekit.cli._common import Choice, Run, common, complete, failures, selection_options


@click.command("bench", short_help="Measure size, latency and memory.")
@selection_options
@click.option(
    "--device",
    "devices",
    metavar="NAME",
    multiple=True,
    shell_complete=complete("device"),
    help="A device profile, or 'all'; may be repeated. Default: this host as it is. See: edgekit devices",
)
@click.option("--threads", type=click.IntRange(min=1), help="Instead of the profile's (this host as it is: 1).")
@click.option(
    "--min-duration", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Seconds to measure for."
)
@click.option("--min-runs", type=click.IntRange(min=1), default=50, show_default=True, help="Inferences to measure.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=300.0, show_default=True, help="Seconds for each."
)
@common
def command(
    run: Run,
    choice: Choice,
    devices: tuple[str, ...],
    threads: int | None,
    min_duration: float,
    min_runs: int,
    timeout: float,
) -> int:
    """Measure size, latency and memory of artifacts, each in a fresh process pinned to cores.

    Every latency carries its tier: `host` is measured on this machine, `analytic` is the device's roofline.

    \b
    Example:
      edgekit bench simple_cnn --device raspberry-pi-4b
      edgekit bench simple_cnn --target tflite:int8 --threads 2 --json
    """
    from dataclasses import asdict

    from edgekit.core.errors import unknown_name
    from edgekit.devices.profile import DeviceProfile, load_profile
    from edgekit.reports.console import bench_tables
    from edgekit.stages.bench import HOST, BenchOptions, bench
    from edgekit.stages.select import Selection, artifacts

    known = run.project.device_files()
    wanted = tuple(known) if "all" in devices else devices
    for name in wanted:
        if name not in known:
            raise unknown_name("device", name, [*known, "all"])
    profiles: list[tuple[str, DeviceProfile | None]] = [(name, load_profile(known[name])) for name in wanted]
    options = BenchOptions(threads=threads, min_duration_s=min_duration, min_runs=min_runs, timeout_s=timeout)
    with run.context() as context:
        chosen = artifacts(context, Selection(*choice))
        done = bench(context, chosen, profiles or [(HOST, None)], options)
    data = {"measurements": [asdict(item) for item in done], "failures": failures(context)}
    benches = {
        name: [item for item in done if item.device == name] for name in dict.fromkeys(item.device for item in done)
    }
    run.answer(data, lambda: bench_tables(benches, run.color).lstrip("\n"))
    return context.exit_code
