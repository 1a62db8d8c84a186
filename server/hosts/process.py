"""A host process on this machine: what it said, how it ends, what is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
import psutil

from server.hosts.launching import CHANNEL_OPTIONS, Whereabouts

# After its grace a host may still clean up before it is killed.
_KILL_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hello:
    """What a host says once its socket listens.

    Attributes:
        address: gRPC target.
        python: Version of its Python.
    """

    address: str
    python: str


@dataclass(frozen=True, slots=True)
class HostProcess:
    """A host process that has said hello; a `server.hosts.launching.LaunchedHost`.

    Attributes:
        name: Name of the host.
        hello: What it said.
        start_time: When, in UTC.
        assets: Names of the assets it was given.
        log_path: Where its output goes.
        log_offset: Where in the log its output starts, in bytes.
        site: None: it sees the files of this machine.
    """

    name: str
    hello: Hello
    start_time: datetime
    assets: frozenset[str]
    log_path: Path
    log_offset: int
    _process: asyncio.subprocess.Process
    _socket: Path
    site: None = None

    @property
    def pid(self) -> int:
        """Its process id, which is that of its process group as well."""
        return self._process.pid

    @property
    def python(self) -> str:
        """Version of its Python."""
        return self.hello.python

    def connect(self) -> grpc.aio.Channel:
        """A new channel to it; not for one behind a TCP door, whose callers have keys."""
        credentials = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
        return grpc.aio.secure_channel(self.hello.address, credentials, options=CHANNEL_OPTIONS)

    def describe(self) -> Whereabouts:
        """Its process and what that uses now."""
        return Whereabouts(node="", pid=self.pid, memory_bytes=_resident_bytes(self.pid))

    async def watch(self) -> str:
        """Waits for its end; says how it ended, such as "was killed by SIGKILL"."""
        return describe_exit(await self._process.wait())

    async def stop(self, grace: float) -> None:
        """Ends it with all its children; returns when nothing of it is left.

        Args:
            grace: Seconds that running calls may take to end; they are cancelled after that.
        """
        try:
            for seconds in (grace, _KILL_SECONDS):
                # The first signal drains, the second cancels the running calls.
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), seconds)
                    break
            else:
                _log.warning("%s does not stop; killing it", self.name)
        finally:
            await self.kill()

    async def kill(self) -> None:
        """Ends it at once with all its children."""
        await kill_group(self._process)
        remove_door(self._socket)


def describe_exit(code: int) -> str:
    """Says how a process ended.

    Args:
        code: Its exit status; negative for the signal that killed it.
    """
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def remove_door(path: Path) -> None:
    """Removes the socket of a host, or the directory of its keys."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _resident_bytes(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total


async def kill_group(process: asyncio.subprocess.Process) -> None:
    """Kills a process group and waits for its leader."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
