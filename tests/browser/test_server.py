"""The server of a page: its secret path, its headers, and nothing outside of its folders."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edgekit.browser.server import PageServer


@pytest.fixture
def server(tmp_path: Path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "page.mjs").write_text("export {}")
    (tmp_path / "outside.txt").write_text("outside")
    (tmp_path / "pages" / "link").symlink_to(tmp_path / "outside.txt")
    with PageServer({"page/": tmp_path / "pages"}) as running:
        yield running


def get(server: PageServer, path: str, secret: bool = True) -> tuple[int, bytes, Mapping[str, str]]:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", f"{address.path if secret else '/'}{path}")
        response = connection.getresponse()
        return response.status, response.read(), response.headers


def test_a_file_comes_with_its_type_and_the_headers_that_threads_need(server: PageServer) -> None:
    status, content, headers = get(server, "page/page.mjs")
    assert (status, content) == (200, b"export {}")
    assert headers["Content-Type"].startswith("text/javascript")
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert server.served == ["page/page.mjs"]


@pytest.mark.parametrize(
    "path", ["page/../outside.txt", "page/%2e%2e/outside.txt", "page/link", "page/", "page/none", "%00", "outside.txt"]
)
def test_nothing_else_is_served(server: PageServer, path: str) -> None:
    assert get(server, path)[0] == 404
    assert server.served == []


def test_without_the_secret_there_is_nothing(server: PageServer) -> None:
    assert get(server, "page/page.mjs", secret=False)[0] == 404


def test_a_file_of_any_name_is_served_under_a_plain_one(server: PageServer, tmp_path: Path) -> None:
    path = tmp_path / 'a "name"?<script>.onnx'
    path.write_bytes(b"model")
    name = server.add(path)
    assert name == "file/0"
    assert get(server, name)[1] == b"model"
