"""The progress that the commands show on a terminal."""

from __future__ import annotations

import io
import sys
import time

import pytest

from edgekit.cli._progress import NORMAL, QUIET, Watcher, _RunningLines, remaining_seconds
from edgekit.core.events import FinishEvent, NoteEvent, OverviewEvent, ProgressEvent, StartEvent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("elapsed_s", "done", "left", "expected"),
    [(10.0, 0, 4, None), (10.0, 1, 4, None), (10.0, 2, 4, 20.0), (9.0, 3, 0, 0.0)],
)
def test_the_time_left_follows_from_the_steps_done(elapsed_s, done, left, expected):
    assert remaining_seconds(elapsed_s, done, left) == expected


def test_a_terminal_shows_what_runs_what_waits_and_an_estimate(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Watcher(NORMAL) as watcher:
        watcher(OverviewEvent("", 0, 4, ("export a",), ("export b", "export c", "export d")))
        watcher(StartEvent("export a"))
        watcher._bar.refresh()
        watcher(FinishEvent("export a", "1 KB"))
        watcher(OverviewEvent("", 1, 4, ("export b",), ("export c", "export d")))
        watcher(OverviewEvent("", 2, 4, ("export c",), ("export d",)))
        watcher._bar.refresh()
    text = terminal.getvalue()
    assert "0 of 4 steps, 3 wait: export b" in text
    assert "2 of 4 steps, 1 wait: export d" in text
    assert "export a" in text
    assert "left," in text


def test_without_a_terminal_there_are_lines_only(capsys):
    with Watcher(NORMAL) as watcher:
        watcher(OverviewEvent("", 0, 4, ("export a",)))
        watcher(StartEvent("export a"))
        watcher(FinishEvent("export a", "1 KB"))
        watcher(NoteEvent("export a", "a note"))
    assert capsys.readouterr().err == "done    export a: 1 KB\nnote    export a: a note\n"


def lines_after(events, seconds, *, lines=None):
    """What a log shows this long after the events, which happen at once."""
    lines = lines or _RunningLines(2.0)
    for event in events:
        lines.update(event, 100.0)
    return lines, lines.due(100.0 + seconds)


def test_a_log_shows_a_step_once_it_has_run_for_a_while():
    lines, early = lines_after([StartEvent("export a"), StartEvent("export b")], 1.9)
    assert early == []
    lines.update(FinishEvent("export b"), 101.95)
    assert lines.due(102.1) == ["running export a"]
    assert lines.due(110.0) == []


def test_a_log_shows_from_time_to_time_how_far_everything_is():
    events = [
        OverviewEvent("", 0, 4, ("train a",), ("export a",)),
        StartEvent("train a"),
        ProgressEvent("train a", 3, 10, {"loss": 0.5}),
    ]
    lines, first = lines_after(events, 2.0)
    assert first == ["running train a: 3 of 10, loss 0.5000"]
    lines.update(ProgressEvent("train a", 9, 10, {"loss": 0.25}), 129.0)
    assert lines.due(130.0) == ["running train a: 9 of 10, loss 0.2500, for 30.0 s", "0 of 4 steps done"]
    lines.update(OverviewEvent("", 2, 4, ("train a",), ("export a",)), 131.0)
    assert lines.due(140.0) == []
    assert lines.due(160.0)[1] == "2 of 4 steps done, about 1 m 0 s left"


def test_a_log_shows_them_while_a_command_waits(monkeypatch, capsys):
    monkeypatch.setattr("edgekit.cli._progress.LINE_AFTER_S", 0.0)
    monkeypatch.setattr("edgekit.cli._progress._LOOK_EVERY_S", 0.01)
    printed = ""
    with Watcher(NORMAL) as watcher:
        watcher(StartEvent("export \x1b[2Ja"))
        while not printed:  # the time-out of the test ends it
            time.sleep(0.01)
            printed = capsys.readouterr().err
    assert printed == "running export \\x1b[2Ja\n"
    with Watcher(QUIET) as watcher:
        watcher(StartEvent("export a"))
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
