"""A web server for files that can break off, hang, lie, redirect and refuse."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What the server has, how it behaves and what it was asked.

    Attributes:
        files: Contents by path.
        redirects: Where paths lead.
        break_after: Bytes after which the connection ends, for the next answers in turn.
        ranges: Whether it knows the Range header.
        hang: Paths that are never answered.
        requests: Path and Range header of every request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    ranges: bool = True
    hang: set[str] = field(default_factory=set)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


@contextlib.contextmanager
def file_server() -> Iterator[FileServer]:
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            if self.path in state.hang:
                state.released.wait(20)
                self.close_connection = True
                return
            if self.path in state.redirects:
                self._answer(302, b"", Location=state.redirects[self.path])
            elif self.path not in state.files:
                self._answer(404, b"not here")
            else:
                self._file(state.files[self.path], wanted)

        def _file(self, content: bytes, wanted: str | None) -> None:
            if wanted is None or not state.ranges:
                self._answer(200, content)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self._answer(416, b"")
                return
            whole = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._answer(206, content[start:], **{"Content-Range": whole})

        def _answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if status in {200, 206} and state.break_after:
                content = content[: state.break_after.pop(0)]
                self.close_connection = True
            with contextlib.suppress(ConnectionError):  # The other side may have seen enough.
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # Clients that have seen enough hang up.

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
