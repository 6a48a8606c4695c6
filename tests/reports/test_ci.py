"""The formats for GitHub and GitLab: annotations, the summary of a step, the code quality report."""

import json
from dataclasses import replace

from _helpers.sample_reports import mixed_report, render, report, row, verdict

from edgekit.reports import github_summary
from edgekit.reports.github_annotations import MAX_ANNOTATIONS


def annotations(*verdicts):
    return render("github-annotations", report(row(verdicts=verdicts))).splitlines()


def test_a_broken_limit_is_an_error_at_the_file_that_set_it():
    error, notice = annotations(replace(verdict(False), origin="models/tiny/model.toml"))
    assert error == (
        "::error file=models/tiny/model.toml,title=tiny/keras tflite%3Aint8%3A size_bytes::tiny/keras tflite:int8:"
        " size_bytes 1.23 MB exceeds the limit 400 KB, set in models/tiny/model.toml"
    )
    assert notice == "::notice title=edgekit::1 rules judged on 1 artifacts: 1 FAILED"


def test_a_limit_of_the_command_line_or_of_edgekit_itself_has_no_file():
    for origin in ("edgekit's device_profiles/pixel-2.toml", "the command line", "/somewhere/models/tiny/model.toml"):
        assert "file=" not in annotations(replace(verdict(False), origin=origin))[0]


def test_percent_signs_and_line_ends_are_escaped():
    error, _ = annotations(replace(verdict(False, figure=None), detail="100 %\r\nof it, or more"))
    assert error.endswith("100 %25%0Aof it, or more")


def test_an_undecided_rule_is_a_warning():
    warning, _ = annotations(replace(verdict(True, limit=2e6), undecided="undecided: who knows"))
    assert warning.startswith("::warning ")
    assert warning.endswith("; undecided: who knows")


def test_annotations_beyond_the_limit_of_github_are_counted():
    lines = annotations(*[verdict(False)] * 14)
    assert len(lines) == MAX_ANNOTATIONS + 1
    assert lines[MAX_ANNOTATIONS - 1] == "::error title=edgekit::5 more; see the report"
    assert len(annotations(*[verdict(False)] * MAX_ANNOTATIONS)) == MAX_ANNOTATIONS + 1


def test_the_title_of_the_summary_marks_passed_and_failed():
    assert render("github-summary", mixed_report()).startswith("# :x: edgekit\n")
    assert render("github-summary", report(row())).startswith("# :white_check_mark: edgekit\n")


def test_the_summary_is_truncated_to_the_limit_of_github(monkeypatch):
    monkeypatch.setattr(github_summary, "LIMIT_BYTES", 600)
    text = render("github-summary", mixed_report())
    assert len(text.encode()) <= 600
    assert text.endswith("This summary was truncated to GitHub's limit of 1 MiB.\n")


def test_long_tables_are_collapsed():
    text = render("markdown", report(*[row()] * 21))
    assert "<summary>21 artifacts</summary>" in text
    assert "<details>" not in render("markdown", report(*[row()] * 20))


def test_code_quality_has_the_keys_that_gitlab_requires():
    made = report(row(verdicts=[verdict(True, limit=2e6), replace(verdict(False), origin="models/tiny/model.toml")]))
    (finding,) = json.loads(render("gitlab-codequality", made))
    assert finding == {
        "description": made.failed[0].sentence,
        "check_name": "size_bytes",
        "fingerprint": finding["fingerprint"],
        "severity": "major",
        "location": {"path": "models/tiny/model.toml", "lines": {"begin": 1}},
    }


def test_a_finding_keeps_its_fingerprint_while_its_figure_changes():
    def fingerprint(item):
        (finding,) = json.loads(render("gitlab-codequality", report(row(verdicts=[item]))))
        return finding["fingerprint"]

    assert fingerprint(verdict(False)) == fingerprint(verdict(False, figure=9e6))
    assert fingerprint(verdict(False)) != fingerprint(verdict(False, rule="peak_memory_bytes"))
