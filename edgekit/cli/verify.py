"""edgekit verify"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._common import CommandSession, common

if TYPE_CHECKING:
    from edgekit.stages.validation.integrity import Verification


@click.command("verify", short_help="Check file hashes against the manifests.")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Also fail on files that no manifest lists, and on outdated results.")
@common
def command(session: CommandSession, folder: Path | None, strict: bool) -> int:
    """Check the hashes of model files, golden samples and trained sources against the recorded ones.

    FOLDER is searched recursively for artifacts (default: build/). No model is run and no framework is needed. The exit
    code is 1 if a file is changed, missing or damaged. Files that no manifest lists, and results for an earlier version
    of a model file, are listed as well.

    \b
    Example:
      edgekit verify
      edgekit verify release/ --strict
    """
    from dataclasses import asdict

    from edgekit.stages.validation.integrity import verify

    found = verify(folder if folder is not None else session.project.build)
    failed = found.findings if strict else found.broken
    data = {
        "passed": not failed,
        "artifacts": [str(path) for path in found.artifacts],
        "sources": [str(path) for path in found.sources],
        "files": found.files,
        "findings": [{**asdict(item), "path": str(item.path), "broken": item.broken} for item in found.findings],
    }
    session.answer(data, lambda: _text(found))
    return 1 if failed else 0


def _text(found: Verification) -> str:
    from collections import Counter

    lines = [f"{item.state:<9} {item.path}: {item.detail}\n" for item in found.findings]
    counts = Counter(item.state for item in found.findings)
    told = ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "all as recorded"
    return "".join(
        [*lines, f"{found.files} files of {len(found.artifacts)} artifacts and {len(found.sources)} sources: {told}\n"]
    )
