"""GitLab's Code Quality report: a JSON list of failed and undecided rules, for `artifacts: reports: codequality:`."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edgekit.contracts.report import ReportFormat
from edgekit.core.records.report import Report
from edgekit.core.values.budgets import Verdict
from edgekit.core.values.file_names import MANIFEST_FILE
from edgekit.reports._shared.cells import limit_file


def _finding(verdict: Verdict, severity: str) -> dict[str, Any]:
    """Return one finding; GitLab recognizes a known finding by its `fingerprint`, which depends on no figure."""
    # GitLab requires a path: limits that no file of the project sets point to the manifest.
    path = limit_file(verdict) or MANIFEST_FILE
    identity = "\n".join((verdict.model, verdict.kind, verdict.variant, verdict.rule, verdict.device or ""))
    return {
        "description": verdict.sentence,
        "check_name": verdict.rule,
        "fingerprint": hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest(),
        "severity": severity,
        "location": {"path": path, "lines": {"begin": 1}},
    }


class GitlabCodequality(ReportFormat):
    """Findings for the widget of a merge request."""

    name = "gitlab-codequality"
    suffix = ".json"

    def render(self, report: Report, *, color: bool = False) -> str:
        findings = [
            _finding(verdict, "minor" if verdict.passed else "major")
            for row in report.rows
            for verdict in row.verdicts
            if not verdict.passed or verdict.undecided
        ]
        return json.dumps(findings, indent=2, sort_keys=True, allow_nan=False) + "\n"


REPORT = GitlabCodequality()
