"""A web server on the loopback interface for one page: with the headers that threads need, behind a secret path."""

from __future__ import annotations

import http.server
import secrets
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

# Of the files that are served. A browser compiles WebAssembly while it arrives only with the right type.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}
# A page has SharedArrayBuffer, and with it threads, only when it is isolated from other origins.
ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class PageServer:
    """Serves folders and single files below `http://127.0.0.1:PORT/SECRET/`; other processes cannot guess the path.

    Attributes:
        served: The paths that were requested, without the secret, in order.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """Start the server in a thread.

        Args:
            folders: Prefix of the path, such as `page/` or empty -> folder. Longer prefixes come first.
        """
        self._folders = dict(sorted(folders.items(), key=lambda item: -len(item[0])))
        self._files: dict[str, Path] = {}
        self._secret = secrets.token_urlsafe(16)
        self.served: list[str] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """The address of the root, with a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_port}/{self._secret}/"

    def add(self, path: Path) -> str:
        """Serve a file under a name that says nothing about it.

        Args:
            path: The file.

        Returns:
            Its path below the root.
        """
        name = f"file/{len(self._files)}"
        self._files[name] = path
        return name

    def find(self, request: str) -> Path | None:
        """Return the file that a request is for, or None.

        Args:
            request: The path of the request, with its secret.
        """
        path = unquote(urlsplit(request).path)
        start = f"/{self._secret}/"
        if not path.startswith(start) or "\0" in path:
            return None
        name = path.removeprefix(start)
        file = self._files.get(name) or self._in_folders(name)
        if file is None or not file.is_file():
            return None
        self.served.append(name)
        return file

    def _in_folders(self, name: str) -> Path | None:
        for prefix, folder in self._folders.items():
            if name.startswith(prefix):
                file = (folder / name.removeprefix(prefix)).resolve()
                return file if file.is_relative_to(folder.resolve()) else None
        return None

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> PageServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _handler(server: PageServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            file = server.find(self.path)
            if file is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", _TYPES.get(file.suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(file.stat().st_size))
            self.send_header("Cache-Control", "no-store")
            for name, value in ISOLATION.items():
                self.send_header(name, value)
            self.end_headers()
            with file.open("rb") as stream:
                shutil.copyfileobj(stream, self.wfile)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Log nothing: requests are the page's own."""

    return Handler
