"""The commands of the tutorial, on a stand-in for a phone."""

from __future__ import annotations

import pytest
from _helpers.documented_commands import console_blocks
from _helpers.emulation import one_op
from _helpers.phones import needs_adb
from _helpers.support import call

pytestmark = [needs_adb, pytest.mark.slow]

# What needs a real phone, or its maker's runner; the fixture has added this one.
_ELSEWHERE = ("apt-get", "adb devices", "devices add")
QUICK = ("--min-duration", "0", "--min-runs", "3")


def commands():
    """The words of the tutorial's commands in order, without those that run elsewhere."""
    blocks = [block for block in console_blocks() if block.id.startswith("docs/tutorials/phone.md")]
    assert blocks, "the tutorial has no commands"
    for block in blocks:
        for command in block.commands:
            if not any(text in " ".join(command.arguments) for text in _ELSEWHERE):
                yield ["one_op" if word == "detector" else word for word in command.arguments[1:]]


@pytest.mark.exhaustive
def test_the_commands_of_the_tutorial_do_what_it_says(phone, tmp_path, monkeypatch):
    one_op(tmp_path)
    monkeypatch.chdir(tmp_path)
    ran = []
    for words in commands():
        extra = QUICK if words[0] == "bench" else ()
        answer = call(*("device=5s" if word == "device=5ms" else word for word in words), *extra)
        # The artifact was written by hand, without the source that a check on this host reads.
        assert answer.code == 0, (words, answer.out, answer.err)
        ran.append(list(words[:2]))
    assert ["devices", "probe"] in ran
    assert ran[-1] == ["devices", "remove"]
    assert not phone.store.exists()
