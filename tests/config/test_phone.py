"""How phones are kept in the user's configuration."""

from __future__ import annotations

import pytest
from _helpers.support import call

from edgekit.config.phone import PHONES, PhoneConfig
from edgekit.core.errors import InputError


@pytest.fixture(autouse=True)
def configuration(tmp_path, monkeypatch):
    """A configuration folder of the test's own."""
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "configuration"))
    return tmp_path / "configuration"


@pytest.fixture
def runner(tmp_path):
    """A file that could be a runner."""
    path = tmp_path / "benchmark model"
    path.write_text("#!/bin/sh\n")
    return path


def test_a_phone_is_added_listed_changed_and_removed(runner):
    answer = call("devices", "add", "phone", "--adb", "0A1B", "--profile", "pixel-2", "--json")
    assert (answer.code, answer.data["adb"], answer.data["runner"]) == (0, "0A1B", None)
    assert call("devices", "add", "phone", "--adb", "other").code == 2
    assert call("devices", "add", "phone", "--runner", runner, "--replace").code == 0
    assert PHONES.load("phone") == PhoneConfig("0A1B", str(runner), "pixel-2")
    listed = call("devices", "--json").data["phones"]
    assert [(row["name"], row["adb"]) for row in listed] == [("phone", "0A1B")]
    assert "0A1B" in call("devices").out
    assert call("devices", "remove", "phone", "--forget").code == 0
    assert not PHONES.files()


@pytest.mark.parametrize(
    "serial", ["192.168.1.2:5555", "emulator-5554", "adb-0A1B-x._adb-tls-connect._tcp", "[fe80::1]:5"]
)
def test_what_adb_lists_is_a_serial_number(serial):
    assert PhoneConfig(serial).adb == serial


@pytest.mark.parametrize("serial", ["", "-d", "a;id", "a\nb", "$(id)", "`id`", "a'b"])
def test_what_an_option_or_a_shell_could_misread_is_refused(serial):
    answer = call("devices", "add", "phone", "--adb", serial)
    assert answer.code == 2
    assert "adb: write a serial number as `adb devices` lists it" in answer.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("phone", "--adb", "1", "--runner", "none-such"), "no such file; name the runner"),
        (("phone", "--runner", "none-such"), "a phone needs a serial number; add --adb SERIAL"),
        (("phone", "--adb", "1", "--ssh", "pi"), "--adb and --runner are for phones"),
        (("pixel-2", "--adb", "1"), "is a device profile"),
        (("phone", "--adb", "1", "--replace"), "no phone phone to replace"),
        (("pi", "--adb", "1"), "pi is a board; choose another name"),
        (("Phone", "--adb", "1"), "cannot be a phone's name"),
        (("phone",), "a board needs a destination; add --ssh [USER@]HOST[:PORT], or --adb SERIAL for a phone"),
    ],
)
def test_a_wrong_addition_is_one_sentence(arguments, message, tmp_path):
    assert call("devices", "add", "pi", "--ssh", "pi").code == 0
    answer = call("devices", "add", *arguments)
    assert answer.code == 2
    assert message in answer.err


def test_a_runner_that_is_no_program_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    answer = call("devices", "add", "phone", "--adb", "1", "--runner", tmp_path / "notes.txt")
    assert answer.code == 2
    assert "is no program for Android" in answer.err


def test_a_name_of_a_phone_and_of_a_profile_is_ambiguous(configuration):
    (configuration / "phones").mkdir(parents=True)
    (configuration / "phones" / "pixel-2.toml").write_text('adb = "1"\n')
    answer = call("bench", "linear", "--device", "pixel-2")
    assert answer.code == 2
    assert "pixel-2 is both a device profile" in answer.err
    with pytest.raises(InputError, match="unknown phone"):
        PHONES.load("none-such")
