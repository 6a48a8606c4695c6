"""edgekit size"""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line


@click.command("size", short_help="Check the sizes of model files.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--max-size",
    "limits",
    metavar="[PATTERN=]SIZE",
    multiple=True,
    help='Size limit for all files, such as "500 KB", or for files that match a pattern, such as'
    ' "models/*_int8.tflite=200 KB"; may be repeated, the strictest limit applies.',
)
@common_options
def command(session: CommandSession, files: tuple[Path, ...], limits: tuple[str, ...]) -> int:
    """Print the size of model files, plain and compressed; the exit code is 1 if a file exceeds its limit.

    Works with any file: no manifest and no framework is needed. The pre-commit hook `edgekit-size` runs this command.

    \b
    Example:
      edgekit size model.tflite --max-size "500 KB"
      edgekit size models/*.tflite --max-size "5 MB" --max-size "*_int8.tflite=2 MB"
    """
    from dataclasses import asdict

    from edgekit.core.units import format_bytes
    from edgekit.reports.console import table
    from edgekit.stages.conversion.size import measure_sizes, parse_limit

    sizes = measure_sizes(files, [parse_limit(text) for text in limits])
    failed = [size for size in sizes if not size.passed]
    data = {
        "passed": not failed,
        "files": [{**asdict(size), "path": str(size.path), "passed": size.passed} for size in sizes],
    }
    rows = [
        (
            str(size.path),
            format_bytes(size.size_bytes),
            "-" if size.compressed_bytes is None else format_bytes(size.compressed_bytes),
            "-" if size.limit_bytes is None else format_bytes(size.limit_bytes),
        )
        for size in sizes
    ]
    lines = "".join(line(f"FAILED  {size.sentence}") for size in failed)
    session.print_result(
        data, lambda: table(("file", "size", "gzip -9", "limit"), rows, left=1, color=session.color) + lines
    )
    return 1 if failed else 0
