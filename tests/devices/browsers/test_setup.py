"""The set-up of the browser's packages, with a stand-in for npm: what is refused, kept and made again."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from edgekit.browser import packages
from edgekit.browser.packages import Package, find_packages, packages_folder, require_packages
from edgekit.core.errors import MissingDependency, StepFailed
from edgekit.devices.browsers import setup


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that writes a prepared archive, as `npm pack` does, and counts its calls; the cache is empty."""
    archive = tmp_path / "package.tgz"
    with tarfile.open(archive, "w:gz") as members:
        for name, content in (("package/dist/index.js", b'import x from "@other/module";'), ("package/x.sh", b"")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$2" >> {tmp_path}/calls\ncp {archive} package.tgz\n')
    program.chmod(0o755)
    integrity = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    pinned = Package("thing@1.2.3", integrity, {"dist/index.js": "thing/index.js"})
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    for module in (packages, setup):
        monkeypatch.setattr(module, "PACKAGES", (pinned,))
    monkeypatch.setattr(setup, "REWRITTEN_IMPORTS", (("thing/index.js", '"@other/module"', '"./other.js"'),))
    return tmp_path


def calls(npm: Path) -> list[str]:
    return (npm / "calls").read_text().split() if (npm / "calls").exists() else []


def test_it_keeps_the_listed_files_with_their_sizes_and_downloads_once(npm: Path) -> None:
    said: list[str] = []
    with pytest.raises(MissingDependency, match="run: edgekit devices setup chromium"):
        require_packages()
    assert setup.set_up(said.append) == ("thing@1.2.3",)
    record = require_packages()
    assert list(record.files) == ["thing/index.js"]
    text = (packages_folder() / "thing" / "index.js").read_text()
    assert text == 'import x from "./other.js";'
    file = record.files["thing/index.js"]
    assert file.size_bytes == len(text)
    assert 0 < file.brotli_bytes < file.gzip_bytes
    assert setup.set_up(said.append) == ()
    assert calls(npm) == ["thing@1.2.3"]
    assert said[0] == "downloading thing@1.2.3"


def test_a_changed_file_is_made_again(npm: Path) -> None:
    setup.set_up(print)
    path = packages_folder() / "thing" / "index.js"
    path.write_text("changed")
    assert setup.set_up(print) == ("thing@1.2.3",)
    assert path.read_text() != "changed"


def test_an_archive_with_another_hash_is_refused_and_leaves_nothing(npm: Path) -> None:
    with (npm / "package.tgz").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(StepFailed, match=r"^downloading thing@1.2.3: its SHA-512 is .* is pinned$"):
        setup.set_up(print)
    assert find_packages() is None


def test_npm_that_fails_is_one_sentence(npm: Path) -> None:
    (npm / "bin" / "npm").write_text("#!/bin/sh\necho 'npm error network unreachable' >&2\nexit 1\n")
    with pytest.raises(StepFailed, match=r"^downloading thing@1.2.3: npm failed \(npm error network unreachable\)$"):
        setup.set_up(print)


def test_removing_leaves_no_folder(npm: Path) -> None:
    setup.set_up(print)
    assert setup.remove() == [packages_folder()]
    assert find_packages() is None
    assert setup.remove() == []
