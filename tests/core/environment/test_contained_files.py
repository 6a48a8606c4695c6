"""Paths from records and model files stay inside their folder, and links are not followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit.core.environment.contained_files import copy_plain_file, path_inside, require_plain_file
from edgekit.core.errors import InputError


@pytest.mark.parametrize("name", ["a", "a/b.txt", "./a", "a b/ü"])
def test_a_relative_path_is_inside_whether_or_not_it_exists(tmp_path: Path, name: str) -> None:
    assert path_inside(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../../x", "a/..", "/etc/passwd", "//x", "a\0b"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not the relative path of a file inside"):
        path_inside(tmp_path, name)


@pytest.mark.parametrize("target", ["/etc", "..", "loop"])
def test_a_way_through_a_link_to_the_outside_or_in_a_circle_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "loop").symlink_to(target)
    with pytest.raises(InputError, match="through a symbolic link"):
        path_inside(tmp_path, "loop/passwd")


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_text("x")
    (tmp_path / "linked").symlink_to("real")
    assert path_inside(tmp_path / "linked", "x").read_text() == "x"
    assert require_plain_file(tmp_path / "linked", "x").read_text() == "x"


def test_a_plain_file_is_reached_without_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_text("x")
    (tmp_path / "inner").symlink_to("real")
    (tmp_path / "link").symlink_to("real/x")
    assert require_plain_file(tmp_path, "real/x").read_text() == "x"
    for name in ("inner/x", "link"):
        with pytest.raises(InputError, match="this is a symbolic link, which edgekit does not follow"):
            require_plain_file(tmp_path, name)
    with pytest.raises(InputError, match="no such file"):
        require_plain_file(tmp_path, "real/y")
    with pytest.raises(InputError, match="this is not a regular folder"):
        require_plain_file(tmp_path, "real/x/y")


def test_links_and_fifos_are_not_copied(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(InputError):
            copy_plain_file(tmp_path / name, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
