"""The progress that the commands show on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from edgekit.cli._progress import NORMAL, Watcher, remaining_seconds
from edgekit.core.events import FinishEvent, NoteEvent, OverviewEvent, StartEvent


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
