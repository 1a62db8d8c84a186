"""Any recording to mono 16-bit samples, decoded in a child process that can be killed.

The child is a fresh interpreter that decodes one file and ends, so nothing a file does to it outlives the
file; see `_decode_child`. One is kept ready, because starting it takes longer than decoding a voice note.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from server.errors import (
    AudioEmpty,
    AudioNotFound,
    AudioTooLong,
    AudioTruncated,
    AudioUnreadable,
    FieldInvalid,
    InternalError,
)
from server.media.spool import Spool, too_large
from server.store.paths import quoted

SAMPLE_RATE: Final = 16000
"""Samples a second of everything that is heard."""

MAX_SAMPLE_RATE: Final = 48000
"""A recording that keeps its own rate has at most this many samples a second."""

USEFUL_SECONDS: Final = 0.5
"""A recording that is cut off is used when more than this much of it can be heard."""

_CHILD: Final = Path(__file__).with_name("_decode_child.py")
_HEADER: Final = struct.Struct("<cI")
_RERECORD: Final = "Record it again, or convert it to WAV, MP3 or OGG."


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """How much of the machine one recording may take.

    Attributes:
        max_upload_bytes: Largest file.
        max_audio_seconds: Longest recording.
        wall_seconds: Longest time decoding may take.
        cpu_seconds: Most processor time.
        memory_bytes: Most memory beyond what the child takes when it starts.
    """

    max_upload_bytes: int = 64 * 2**20
    max_audio_seconds: float = 300.0
    wall_seconds: float = 30.0
    cpu_seconds: int = 20
    memory_bytes: int = 512 * 2**20


@dataclass(frozen=True, slots=True)
class DecodedAudio:
    """A recording, ready to be heard.

    Attributes:
        pcm: Samples, int16 [n].
        source_format: What it was, `CONTAINER/CODEC`.
        truncated: Whether some of it was missing or damaged.
        sample_rate: Samples a second.
    """

    pcm: npt.NDArray[np.int16]
    source_format: str
    truncated: bool
    sample_rate: int

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.pcm) / self.sample_rate


class AudioDecoder:
    """Decodes recordings, each in a process of its own."""

    def __init__(self, scratch: Path | None = None, command: tuple[str, ...] | None = None) -> None:
        """Starts no process yet.

        Args:
            scratch: Directory for uploads on their way, the store's `tmp`.
            command: The child's command line, when it is not this module's own.
        """
        self._scratch = scratch
        self._command = command or (sys.executable, "-I", str(_CHILD))
        self._spares: deque[_Child] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._refilling: asyncio.Future[None] | None = None

    def warm(self) -> None:
        """Makes sure that a child is ready or getting ready. Blocks for a few milliseconds."""
        with self._lock:
            if not self._spares and not self._closed:
                self._spares.append(_Child(self._command))

    async def decode(
        self,
        source: bytes | Path | AsyncIterable[bytes],
        limits: DecodeLimits | None = None,
        *,
        sample_rate: int | None = SAMPLE_RATE,
    ) -> DecodedAudio:
        """Decodes one recording. When it is cancelled, the child is killed at once.

        Args:
            source: A whole file in any usual container, its path, or its bytes as they arrive.
            limits: What it may take; the usual limits when None.
            sample_rate: Samples a second to convert to; None keeps the recording's own (8,000 to 48,000).

        Raises:
            server.errors.AudioError: One of its kinds, when the recording cannot be used.
            FieldInvalid: If there is no file at the path.
            DiskFull: If an upload does not fit on the disk.
        """
        terms = _Terms(limits or DecodeLimits(), sample_rate)
        if isinstance(source, Path):
            descriptor = await asyncio.to_thread(_open_file, source, terms.limits.max_upload_bytes)
            try:
                return await self._run(descriptor, terms)
            finally:
                os.close(descriptor)
        spool = await asyncio.to_thread(Spool, self._scratch, terms.limits.max_upload_bytes)
        try:
            if isinstance(source, bytes):
                await asyncio.to_thread(spool.write, source)
            else:
                await spool.fill(source)
            if not spool.size:
                raise AudioEmpty("The recording is empty: not one byte arrived.", fix="Record it again.")
            return await self._run(spool.fileno(), terms)
        finally:
            spool.close()

    def close(self) -> None:
        """Ends the children that wait."""
        with self._lock:
            self._closed = True
            while self._spares:
                self._spares.pop().end()

    def _refill(self) -> None:
        # Should no process start, the next recording tries again and says so.
        with contextlib.suppress(OSError):
            self.warm()

    async def _run(self, descriptor: int, terms: _Terms) -> DecodedAudio:
        """Has a child decode the file behind the descriptor."""
        with self._lock:
            spare = self._spares.pop() if self._spares else None
        if spare is not None:
            try:
                return await self._ask(spare, descriptor, terms)
            except _GoneError:
                pass  # It died while it waited, which says nothing about the file.
        try:
            return await self._ask(await asyncio.to_thread(_Child, self._command), descriptor, terms)
        except _GoneError as error:
            raise InternalError("The decoder does not start.", fix="viseme doctor") from error

    async def _ask(self, child: _Child, descriptor: int, terms: _Terms) -> DecodedAudio:
        """Has this child decode the file, and kills it whatever happens.

        Raises:
            _GoneError: If it died before it began.
        """
        try:
            child.send(descriptor, terms)
            async with asyncio.timeout(terms.limits.wall_seconds):
                pcm, report = await child.result(terms)
        except TimeoutError:
            raise AudioUnreadable("Decoding the recording took too long.", fix=_RERECORD) from None
        finally:
            child.kill()
            await asyncio.shield(asyncio.to_thread(child.wait))
            # Only now, and nobody waits for it: the recording comes before the next one's child.
            self._refilling = asyncio.get_running_loop().run_in_executor(None, self._refill)
        return _judge(pcm, report, terms.limits)


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a child is asked for: within these limits, at this rate or the recording's own."""

    limits: DecodeLimits
    sample_rate: int | None

    @property
    def most_bytes(self) -> int:
        """More samples than this come only from a child that its file has taken over."""
        return int((self.limits.max_audio_seconds + 2) * (self.sample_rate or MAX_SAMPLE_RATE)) * 2


class _GoneError(Exception):
    """A child died before it was given its file."""


class _Child:
    """One process that decodes one file."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )

    def send(self, descriptor: int, terms: _Terms) -> None:
        """Asks for the file behind the descriptor.

        Raises:
            _GoneError: If the child is gone.
        """
        request = {
            "max_seconds": terms.limits.max_audio_seconds,
            "cpu_seconds": terms.limits.cpu_seconds,
            "memory_bytes": terms.limits.memory_bytes,
            "rate": terms.sample_rate,
        }
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [descriptor])
        except OSError as error:
            raise _GoneError from error

    async def result(self, terms: _Terms) -> tuple[bytearray, dict[str, object]]:
        """The samples and the child's report; the report is empty when the child died at work.

        Raises:
            _GoneError: If it died before it began.
        """
        self._socket.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=self._socket)
        pcm = bytearray()
        begun = False
        try:
            while len(pcm) <= terms.most_bytes:
                kind, length = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                begun = True
                body = await reader.readexactly(min(length, terms.most_bytes))
                if kind == b"E":
                    report = json.loads(body)
                    return pcm, report if isinstance(report, dict) else {}
                pcm += body
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            if not begun:
                raise _GoneError from None
        finally:
            writer.close()
        return pcm, {}

    def kill(self) -> None:
        """Kills the process; does not wait for it."""
        self._process.kill()

    def wait(self) -> None:
        """Waits until the process is gone."""
        self._process.wait()
        self._socket.close()

    def end(self) -> None:
        """Kills the process and waits for it."""
        self.kill()
        self.wait()


def _open_file(path: Path, max_bytes: int) -> int:
    """Opens a regular file of at most `max_bytes`."""
    try:
        # A pipe would keep the open waiting for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FieldInvalid(
            f"The file {quoted(str(path))} cannot be opened: {error.strerror}.", fix="Check the path."
        ) from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise AudioUnreadable(f"{quoted(str(path))} is not a file.", fix="Give the path of a recording.")
        if not facts.st_size:
            raise AudioEmpty("The recording is empty: the file has no bytes.", fix="Record it again.")
        if facts.st_size > max_bytes:
            raise too_large(facts.st_size, max_bytes)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _judge(pcm: bytearray, report: dict[str, object], limits: DecodeLimits) -> DecodedAudio:
    """Turns what the child sent into audio or the error that names what was wrong."""
    outcome = report.get("outcome")
    samples = np.frombuffer(pcm, "<i2", len(pcm) // 2).astype(np.int16, copy=False)
    rate = report.get("rate")
    audio = DecodedAudio(
        samples,
        str(report.get("format") or ""),
        bool(report.get("truncated")),
        rate if isinstance(rate, int) and 0 < rate <= MAX_SAMPLE_RATE else SAMPLE_RATE,
    )
    if outcome == "too_long":
        declared = report.get("declared")
        raise AudioTooLong(
            f"The recording lasts {_spell(declared if isinstance(declared, float) else None, limits)};"
            f" at most {_clock(limits.max_audio_seconds)} are accepted.",
            fix="Send a shorter one, or send it in parts.",
        )
    if outcome == "not_found":
        raise AudioNotFound(
            "The file has no sound track.",
            fix="Record it again with the microphone switched on.",
        )
    if outcome == "out_of_memory":
        raise AudioUnreadable("Decoding the file takes more memory than a recording may take.", fix=_RERECORD)
    if outcome == "cut_off" or (audio.truncated and audio.duration <= USEFUL_SECONDS):
        raise AudioTruncated(
            "The recording is cut off or damaged, and nothing useful of it can be heard.",
            fix="Send it again, and wait until the upload is complete.",
        )
    if outcome != "ok":
        raise AudioUnreadable("The file is not a recording in a format that viseme can read.", fix=_RERECORD)
    if not len(samples):
        raise AudioEmpty("The recording is empty: its sound track has no samples.", fix="Record it again.")
    return audio


def _spell(declared: float | None, limits: DecodeLimits) -> str:
    if declared is None or declared <= limits.max_audio_seconds:
        return f"longer than {_clock(limits.max_audio_seconds)}"
    return f"about {_clock(declared)}"


def _clock(seconds: float) -> str:
    """Seconds in words, in the largest unit that says enough."""
    if seconds < 120:
        return f"{seconds:g} seconds" if seconds == int(seconds) else f"{seconds:.1f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.3g} minutes"
    return f"{seconds / 3600:.3g} hours"


_shared: Final = AudioDecoder()
atexit.register(_shared.close)


async def decode_audio(
    source: bytes | Path | AsyncIterable[bytes],
    limits: DecodeLimits | None = None,
    *,
    sample_rate: int | None = SAMPLE_RATE,
) -> DecodedAudio:
    """Decodes one recording with the process-wide decoder; see `AudioDecoder.decode`."""
    return await _shared.decode(source, limits, sample_rate=sample_rate)
