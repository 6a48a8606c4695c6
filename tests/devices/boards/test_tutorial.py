"""The commands of the tutorial, on a board that is a real sshd on this machine."""

from __future__ import annotations

import numpy as np
import pytest
from _helpers.boards import needs_sshd
from _helpers.documented_commands import console_blocks
from _helpers.support import call

from edgekit.devices.emulation.folders import PLUGIN_SOURCE

pytestmark = [needs_sshd, pytest.mark.slow]

# What needs another machine, the package index, QEMU or minutes; other tests run it.
_ELSEWHERE = ("ssh-copy-id", "devices add", "devices install", "devices fit", "pi-fitted", "--tier emulated", "tune")
QUICK = ("--min-duration", "0", "--min-runs", "3")


def commands():
    """The words of the tutorial's commands in order, without those that run elsewhere."""
    blocks = [block for block in console_blocks() if block.id.startswith("docs/tutorials/board.md")]
    assert blocks, "the tutorial has no commands"
    for block in blocks:
        for command in block.commands:
            if not any(text in " ".join(command.arguments) for text in _ELSEWHERE):
                yield command.arguments[1:]


@pytest.mark.exhaustive
def test_the_commands_of_the_tutorial_do_what_it_says(board, tmp_path, monkeypatch):
    model = PLUGIN_SOURCE.with_name("one_op.onnx")
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32))
    arguments = ("--name", "detector", "--sample", tmp_path / "s.npz", "--target", "onnx:float32", "--root", tmp_path)
    answer = call("export", model, *arguments)
    assert answer.code == 0, answer.err
    monkeypatch.chdir(tmp_path)
    ran = []
    for words in commands():
        extra = QUICK if words[0] == "bench" else ()
        if "--baseline" in words:
            (tmp_path / "main.json").write_text(call("report", "--format", "json").out)
            extra = (*extra, "--max-regression", "2000%")  # this machine is busy with other tests
        answer = call(*("device=5s" if word == "device=5ms" else word for word in words), *extra)
        assert answer.code == 0, (words, answer.out, answer.err)
        ran.append(list(words[:2]))
    assert ["devices", "probe"] in ran
    assert ran[-1] == ["devices", "remove"]
    assert not board.store.exists()
