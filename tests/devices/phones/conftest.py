"""A phone that tests of this folder share: a stand-in for the adb server, which runs commands on this machine."""

from __future__ import annotations

import pytest
from _helpers.phones import SERIAL, fake_phone
from _helpers.support import call


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A connected phone, added as `phone` with a runner of this host."""
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "configuration"))
    with fake_phone(tmp_path / "phone") as fake:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(fake.port))
        runner = fake.write_runner(tmp_path / "benchmark_model")
        answer = call("devices", "add", "phone", "--adb", SERIAL, "--runner", runner)
        assert answer.code == 0, answer.err
        yield fake
        fake.wait_until_idle()
