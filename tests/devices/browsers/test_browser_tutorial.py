"""The commands of the tutorial, in a real browser on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from _helpers.browsers import needs_browser, set_up_packages
from _helpers.documented_commands import console_blocks
from _helpers.support import call

from edgekit.devices.emulation.folders import PLUGIN_SOURCE

pytestmark = [needs_browser, pytest.mark.slow]

# Two pages of the software adapter take most of the time; other tests run it.
_ELSEWHERE = ("bench detector --device chromium-webgpu", "bench detector --device chromium --threads")
QUICK = ("--min-duration", "0", "--min-runs", "3")


def test_the_commands_of_the_tutorial_do_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_packages()
    model = PLUGIN_SOURCE.with_name("one_op.onnx")
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32))
    arguments = ("--name", "detector", "--sample", tmp_path / "s.npz", "--target", "onnx:float32", "--emit", "web")
    answer = call("export", model, *arguments, "--root", tmp_path)
    assert answer.code == 0, answer.err
    assert (tmp_path / "build" / "detector" / "onnx" / "onnx-float32-web" / "index.html").is_file()
    monkeypatch.chdir(tmp_path)
    ran = []
    for block in console_blocks():
        for command in block.commands if block.id.startswith("docs/tutorials/browser.md") else ():
            words = command.arguments[1:]
            if command.arguments[0] != "edgekit" or words[0] == "export" or " ".join(words).startswith(_ELSEWHERE):
                continue
            answer = call(
                *("device=5s" if word == "device=20ms" else word for word in words),
                *(QUICK if words[0] == "bench" else ()),
            )
            assert answer.code == 0, (words, answer.out, answer.err)
            ran.append(words[0])
    assert set(ran) == {"devices", "validate", "bench", "check"}
