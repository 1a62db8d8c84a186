"""An S3 server on this machine, moto's, in a process of its own; it can be stopped and started again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

BUCKET = "viseme"
KEY = {"AWS_ACCESS_KEY_ID": "the-id", "AWS_SECRET_ACCESS_KEY": "the-secret-key"}


class S3Server:
    """Starts on a free port of the loopback, and makes a bucket.

    Args:
        log: File for its output.
        authenticate: Whether the server checks who calls, as a real one does.
    """

    def __init__(self, log: Path, *, authenticate: bool = False) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._log = log
        self._environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "1" if authenticate else "1000000"}
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=log, stderr=log, env=self._environment,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.put(f"{self.endpoint}/{BUCKET}", timeout=20).raise_for_status()
                return
            except httpx.TransportError:
                assert time.monotonic() < deadline and self._process.poll() is None, self._log.read_text()
                time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
