"""How boards are kept in the user's configuration."""

from __future__ import annotations

import pytest
from _helpers.support import call

from edgekit.config.board import BOARDS, BoardConfig, parse_destination
from edgekit.core.errors import InputError


@pytest.fixture(autouse=True)
def configuration(tmp_path, monkeypatch):
    """A configuration folder of the test's own."""
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "configuration"))
    return tmp_path / "configuration"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pi@raspberrypi.local", ("pi@raspberrypi.local", None)),
        ("raspberrypi:2222", ("raspberrypi", 2222)),
        ("pi@[fe80::1]:22", ("pi@fe80::1", 22)),
        ("::1", ("::1", None)),
        ("my_board", ("my_board", None)),
    ],
)
def test_a_destination_is_split(text, expected):
    assert parse_destination(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "-oProxyCommand=touch /tmp/x",
        "pi@-oProxyCommand=x",
        "-l@host",
        "host;id",
        "$(id)@host",
        "pi@host name",
        "pi@`id`",
        "host:0",
        "host:65536",
        "host\n",
        "",
        "a@b@c",
        "pi@ho'st",
        "%h",
    ],
)
def test_a_destination_that_a_shell_or_ssh_could_misread_is_refused(text):
    with pytest.raises(InputError, match="no ssh destination"):
        parse_destination(text)


def test_a_file_with_such_a_destination_is_refused_too(configuration):
    (configuration / "boards").mkdir(parents=True)
    (configuration / "boards" / "pi.toml").write_text('ssh = "-oProxyCommand=id"\n')
    with pytest.raises(InputError, match=r"pi\.toml.*ssh: write \[user@\]host"):
        BOARDS.load("pi")


def test_an_unknown_key_is_refused(configuration):
    (configuration / "boards").mkdir(parents=True)
    (configuration / "boards" / "pi.toml").write_text('ssh = "pi"\npassword = "raspberry"\n')
    with pytest.raises(InputError, match="password"):
        BOARDS.load("pi")


@pytest.mark.parametrize("name", ["host", "all", "-pi", "../pi", "Pi", "", "a/b", "pi\n", "a b"])
def test_a_name_that_is_no_part_of_a_file_name_is_refused(name):
    with pytest.raises(InputError, match="cannot be a board's name"):
        BOARDS.check_name(name)


def test_a_board_is_added_listed_and_changed(tmp_path, configuration):
    answer = call("devices", "add", "pi", "--ssh", "pi@board:2222", "--profile", "raspberry-pi-4b", "--json")
    assert (answer.code, answer.data["ssh"], answer.data["port"]) == (0, "pi@board", 2222)
    assert call("devices", "add", "pi", "--ssh", "other").code == 2
    assert call("devices", "add", "pi", "--python", "venv/bin/python", "--replace").code == 0
    board = BOARDS.load("pi")
    assert board == BoardConfig("pi@board", 2222, None, "venv/bin/python", "raspberry-pi-4b")
    listed = call("devices", "--json").data["boards"]
    assert [(row["name"], row["ssh"]) for row in listed] == [("pi", "pi@board")]
    assert "pi@board port 2222" in call("devices").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pi",), "needs a destination"),
        (("raspberry-pi-4b", "--ssh", "pi"), "is a device profile"),
        (("pi", "--ssh", "pi", "--profile", "none-such"), "unknown device"),
        (("pi", "--ssh", "pi", "--identity", "none-such"), "no such file"),
        (("pi", "--ssh", "pi", "--replace"), "no board pi to replace"),
        (("pi", "--ssh", "pi", "--python", "-c"), "start with '-'"),
        (("pi", "--ssh", "pi", "--python", "py\nthon"), "control characters"),
    ],
)
def test_a_board_that_cannot_work_is_not_added(arguments, message, configuration):
    answer = call("devices", "add", *arguments)
    assert answer.code == 2
    assert message in answer.err
    assert not list(configuration.rglob("*.toml"))


def test_strings_survive_the_file(tmp_path):
    odd = tmp_path / 'a "key" \\ ü'
    odd.write_text("")
    board = BOARDS.new(ssh="pi", identity=str(odd), python="/opt/my python")
    BOARDS.save("pi", board)
    assert BOARDS.load("pi") == board
