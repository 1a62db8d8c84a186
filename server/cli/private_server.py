"""A server of one's own for the length of one command: a child process on a free port of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from server.cli.failures import CommandError, ExitCode

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
_LAST_LINES: Final = 8


class PrivateServer:
    """Runs `viseme serve` in the background; a context manager.

    The server sees the end of its standard input when this process ends, however it ends, and stops.
    """

    def __init__(self, home: Path, config: Path | None = None, *, warm: bool = True) -> None:
        """Starts nothing yet.

        Args:
            home: VISEME_HOME, for its log.
            config: Its configuration file; None means the usual one.
            warm: Whether it starts its hosts at once.
        """
        self._log = home / "logs" / "private_server.log"
        self._home = home
        self._command = [
            sys.executable,
            "-m",
            "server.cli.main",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--private",
        ]
        if warm:
            self._command.append("--warm")
        if config is not None:
            self._command += ["--config", str(config.resolve())]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> str:
        """Starts the server and waits until it answers.

        Returns:
            Its address, `HOST:PORT`.

        Raises:
            CommandError: If it does not start.
        """
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(self._home),
                # Ctrl-C is for us; we then stop the server.
                start_new_session=True,
            )
        try:
            address = self._address(self._process)
        except BaseException:
            self._stop()
            raise
        return address

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the server and its hosts."""
        self._stop()

    def _address(self, process: subprocess.Popen[bytes]) -> str:
        # A process that never writes must not be waited for forever.
        watchdog = threading.Timer(START_SECONDS, process.kill)
        watchdog.start()
        try:
            line = _pipe(process.stdout).readline().decode().strip()
        finally:
            watchdog.cancel()
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
            raise CommandError(
                "\n".join(("The server does not start. It said:", *said)),
                fix=f"viseme doctor; all of it is in {self._log}",
                code=ExitCode.NOT_READY,
            )
        return line

    def _stop(self) -> None:
        process = self._process
        if process is None:
            return
        _pipe(process.stdin).close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # It drains too long for our taste; a second signal ends that, and the hosts see our end.
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        _pipe(process.stdout).close()
        self._process = None


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the process was started without this pipe")
    return pipe


def _environment(home: Path) -> dict[str, str]:
    """Ours, with the way to the packages that this process has found."""
    import viseme

    import server

    places = [Path(str(package.__file__)).resolve().parents[1] for package in (server, viseme)]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join(dict.fromkeys([*map(str, places), *(place for place in inherited if place)]))
    return {**os.environ, "PYTHONPATH": path, "VISEME_HOME": str(home)}
