"""Runs one command to its end, tells what it prints, and ends it with all its children when nobody waits."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Generator, Mapping, Sequence

import grpc

from model_hosts.sdk import Cancellation, HostError
from model_hosts.talking_gaussian_upstream import leash
from model_hosts.talking_gaussian_upstream.output import Fact, OutputReader

SILENT_SECONDS = 1800.0
"""A script that prints nothing for so long hangs: loading a long recording takes minutes."""
_POLL_SECONDS = 0.1
_END_SECONDS = 2.0
_log = logging.getLogger(__name__)


def run(
    what: str,
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    cancellation: Cancellation,
    silent_seconds: float = SILENT_SECONDS,
) -> Generator[Fact, None, None]:
    """Runs a command; yields what it tells.

    When the caller stops listening, or the cancellation comes, the whole process group is ended before this
    returns.

    Args:
        what: The command in words, for messages, such as "The original's train_face.py".
        command: Its words.
        directory: Where it runs.
        environment: All its variables.
        cancellation: Ends it.
        silent_seconds: How long it may print nothing.

    Raises:
        HostError: It failed, or hangs; with its last lines.
        Cancelled: Nobody waits any more.
    """
    reader = OutputReader()
    process = _Leashed(command, directory, environment)
    try:
        heard = time.monotonic()
        while True:
            cancellation.check()
            data = process.read(_POLL_SECONDS)
            if data:
                heard = time.monotonic()
                sys.stderr.buffer.write(data)
                sys.stderr.flush()
                yield from reader.feed(data)
            elif data is None and process.ended():
                break
            elif time.monotonic() - heard > silent_seconds:
                raise _failed(f"{what} has printed nothing for {silent_seconds / 60:.0f} minutes", reader)
        yield from reader.finish()
        code = process.status()
    finally:
        process.end()
    if code != 0:
        raise _failed(f"{what} {_how(code)}", reader)


class _Leashed:
    """A process on the leash, whose output a thread reads."""

    def __init__(self, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        reading, writing = os.pipe()
        # By its file: the command may have an environment in which our packages are not found.
        _log.info("running %s", " ".join(command))
        command = [sys.executable, leash.__file__, str(writing), *command]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=str(directory),
                env=environment,
                start_new_session=True,
                pass_fds=(writing,),
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._status = os.fdopen(reading, "rb")
        self._output: queue.Queue[bytes] = queue.Queue()
        self._thread = threading.Thread(target=self._read, name="output", daemon=True)
        self._thread.start()

    def read(self, seconds: float) -> bytes | None:
        """What was printed next; None when that was nothing for so long."""
        try:
            return self._output.get(timeout=seconds)
        except queue.Empty:
            return None

    def ended(self) -> bool:
        """Whether it has ended and all it printed was read."""
        if self._process.poll() is None:
            return False
        # A process that left the group may hold the pipe open for ever.
        self._thread.join(_END_SECONDS)
        return self._output.empty()

    def status(self) -> int:
        """Status of the command, negative for a signal; once it has ended."""
        return int(self._status.read() or b"%d" % self._process.returncode)

    def end(self) -> None:
        """Ends it with its group, gently first; nothing happens when it has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(leash.GRACE_SECONDS + _END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._thread.join(_END_SECONDS)
        self._process.stdout.close()
        self._status.close()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 (asked for above)
        descriptor = self._process.stdout.fileno()
        try:
            data = os.read(descriptor, 65536)
            while data:
                self._output.put(data)
                data = os.read(descriptor, 65536)
        except OSError:
            pass


def script_environment() -> dict[str, str]:
    """Our own environment without what leads Python to our packages: the original has its own."""
    ours = {"PYTHONPATH", "PYTHONNOUSERSITE"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"was killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


def _failed(what: str, reader: OutputReader) -> HostError:
    words = reader.last_words()
    message = what + (f":\n{words}" if words else ".")
    if "No space left on device" in words:
        return HostError(grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL", message)
    if "out of memory" in words:
        return HostError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "DEVICE_UNSUITABLE",
            message,
            "Use a GPU with more free memory, or a shorter recording.",
        )
    return HostError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "UPSTREAM_FAILED",
        message,
        "viseme hosts logs talking_gaussian_upstream",
    )
