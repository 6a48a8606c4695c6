"""edgekit verify"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line

if TYPE_CHECKING:
    from edgekit.stages.validation.integrity import Verification


@click.command("verify", short_help="Check file hashes against the manifests.")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Also fail on files that no manifest lists, and on outdated results.")
@common_options
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

    verification = verify(folder if folder is not None else session.project.build)
    failed = verification.findings if strict else verification.broken
    data = {
        "passed": not failed,
        "artifacts": [str(path) for path in verification.artifacts],
        "sources": [str(path) for path in verification.sources],
        "files": verification.files,
        "findings": [
            {**asdict(finding), "path": str(finding.path), "broken": finding.broken}
            for finding in verification.findings
        ],
    }
    session.print_result(data, lambda: _render(verification))
    return 1 if failed else 0


def _render(verification: Verification) -> str:
    from collections import Counter

    lines = [line(f"{finding.state:<9} {finding.path}: {finding.detail}") for finding in verification.findings]
    counts = Counter(finding.state for finding in verification.findings)
    summary = ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "all as recorded"
    artifacts, sources = len(verification.artifacts), len(verification.sources)
    lines.append(line(f"{verification.files} files of {artifacts} artifacts and {sources} sources: {summary}"))
    return "".join(lines)
