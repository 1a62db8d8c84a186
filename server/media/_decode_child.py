"""The child process that decodes one untrusted recording, and then ends.

Run by path in a fresh interpreter (`python -I _decode_child.py`), so it sees the standard library and PyAV
only, and nothing of the server. Standard input is a socket: one request comes in as a line of JSON with the
open file attached (SCM_RIGHTS), and sound goes out in messages of one kind byte, a 32-bit little-endian
length and a body:

- `B`: the first message: the request has arrived and work begins;
- `P`: mono little-endian signed 16-bit samples;
- `E`: the last message, JSON: `outcome` (one of the constants below), `format`, `truncated`, `rate` (samples
  a second), `declared` (seconds that the file claims to last, or null).

Before the first byte is looked at, the process gives up opening files and sockets, starting processes, and
using more memory and processor time than it is given. What is left to a file that subverts the decoder is to
lie about its own sound.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

OK: Final = "ok"
NOT_FOUND: Final = "not_found"
UNREADABLE: Final = "unreadable"
CUT_OFF: Final = "cut_off"
TOO_LONG: Final = "too_long"
OUT_OF_MEMORY: Final = "out_of_memory"

# What browsers, telephones and recorders write. Playlists and other formats that name further files are left
# out.
FORMATS: Final = ",".join(
    (
        *("aac", "aiff", "amr", "asf", "au", "avi", "caf", "flac", "flv", "matroska", "webm", "mp3", "mpeg"),
        *("mpegts", "ogg", "rf64", "w64", "wav", "mov", "mp4", "m4a", "3gp", "3g2", "mj2"),
    )
)

MAX_TAIL: Final = 66_000
"""An Ogg page is at most 65,307 bytes long, so the last one begins within this many of the end."""


Sink: TypeAlias = Callable[[bytes], None]
"""Takes samples: mono little-endian signed 16-bit."""


class TooLongError(Exception):
    """The recording goes on past the limit."""


def main() -> None:
    """Serves the one request that arrives on standard input."""
    channel = socket.socket(fileno=0)
    _rehearse()
    request, descriptors, _, _ = socket.recv_fds(channel, 4096, 1)
    if not descriptors:
        return
    _send(channel, b"B", b"")
    terms: dict[str, Any] = json.loads(request)
    _give_up_powers(int(terms["memory_bytes"]), int(terms["cpu_seconds"]))
    with os.fdopen(descriptors[0], "rb", buffering=0) as file:
        report = _decode(
            file, lambda pcm: _send(channel, b"P", pcm), float(terms["max_seconds"]), terms["rate"]
        )
    _send(channel, b"E", json.dumps(report).encode())


def _rehearse() -> None:
    """Decodes a little silence: what is loaded on first use must be there before files cannot be opened."""
    silence = bytes(2 * 4410)
    wav = (
        struct.pack(
            "<4sI8sIHHIIHH4sI",
            b"RIFF",
            36 + len(silence),
            b"WAVEfmt ",
            16,
            1,
            1,
            44100,
            88200,
            2,
            16,
            b"data",
            len(silence),
        )
        + silence
    )
    _decode(io.BytesIO(wav), lambda pcm: None, 1.0, None)


def _give_up_powers(memory_bytes: int, cpu_seconds: int) -> None:
    """Limits this process for the rest of its life."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    spent = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(spent.ru_utime + spent.ru_stime) + cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    with contextlib.suppress(OSError, ValueError):  # Not every system has these.
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_VIRTUAL + memory_bytes,) * 2)


def _virtual_bytes() -> int:
    """Address space in use after the libraries are loaded; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except OSError:
        return 0


_VIRTUAL: Final = _virtual_bytes()


def _decode(file: BinaryIO, sink: Sink, max_seconds: float, rate: int | None) -> dict[str, object]:
    """Decodes the file and sends its sound; returns the body of the last message."""
    report: dict[str, object] = {
        "outcome": UNREADABLE,
        "format": "",
        "truncated": False,
        "declared": None,
        "rate": rate,
    }
    known = False
    try:
        known, cut = _look(file)
        with _open(file) as container:
            stream = container.streams.best("audio")
            report["format"] = container.format.name
            if not isinstance(stream, AudioStream):
                report["outcome"] = NOT_FOUND
                return report
            if getattr(stream, "codec_context", None) is None:  # A codec that nobody knows.
                return report
            declared = container.duration / 1e6 if container.duration and container.duration > 0 else None
            report["declared"] = declared
            report["format"] = f"{container.format.name.partition(',')[0]}/{stream.codec_context.name}"
            proven = (
                declared is not None and declared > max_seconds and _reaches(container, stream, max_seconds)
            )
        if proven:
            report["outcome"] = TOO_LONG
            return report
        file.seek(0)
        with _open(file) as container:
            report["rate"] = rate = rate or _own_rate(container)
            seconds, damaged = _send_sound(container, _Mixer(sink, rate), max_seconds)
        missing = declared is not None and seconds < declared - max(0.25, 0.02 * declared)
        report["truncated"] = cut or damaged or missing
        report["outcome"] = OK
    except TooLongError:
        report["outcome"] = TOO_LONG
    except (MemoryError, av.MemoryError):
        report["outcome"] = OUT_OF_MEMORY
    except (av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError):
        # PyAV raises all of these on nonsense; a file that begins like sound was probably cut off.
        report["outcome"] = CUT_OFF if known else UNREADABLE
    return report


def _open(file: BinaryIO) -> InputContainer:
    file.seek(0)
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    return av.open(file, "r", options=options, buffer_size=65536, metadata_errors="replace")


def _look(file: BinaryIO) -> tuple[bool, bool]:
    """Whether the file begins like a container of sound, and whether its own lengths say that it is cut off.

    PyAV plays what is there of a WAV or Ogg file that is cut off, without saying so.
    """
    file.seek(0)
    head = file.read(64)
    size = file.seek(0, io.SEEK_END)
    if head[:4] == b"RIFF":
        declared = struct.unpack("<I", head[4:8])[0] if len(head) >= 8 else 0
        # Recorders that cannot seek back leave a length of nought or of "very much".
        return True, 0 < declared < 0x7FFF0000 and declared + 8 > size + 1
    if head[:4] == b"OggS":
        file.seek(max(0, size - MAX_TAIL))
        return True, _ogg_cut_off(file.read(MAX_TAIL))
    return (
        head[:4] in {b"fLaC", b"\x1aE\xdf\xa3", b"FORM", b"caff", b".snd", b"RF64"}
        or head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free"}
        or head[:3] == b"ID3"
        or head[:5] == b"#!AMR"
        or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"),
        False,
    )


def _ogg_cut_off(tail: bytes) -> bool:
    """Whether the last page in `tail` reaches past its end."""
    start = tail.rfind(b"OggS")
    if start < 0:
        return True
    page = tail[start:]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    return len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _own_rate(container: InputContainer) -> int:
    """The sound track's own rate, or the nearest that everything here can handle."""
    stream = container.streams.best("audio")
    return min(48_000, max(8_000, stream.rate if isinstance(stream, AudioStream) and stream.rate else 16_000))


def _reaches(container: InputContainer, stream: AudioStream, seconds: float) -> bool:
    """Whether there is sound beyond `seconds`, found by going there; a file's claim alone proves nothing."""
    try:
        container.seek(int((seconds + 1) * 1e6))
        for count, packet in enumerate(container.demux(stream)):
            if packet.pts is None or packet.time_base is None or count > 50:
                return False
            if packet.size and float((packet.pts - (stream.start_time or 0)) * packet.time_base) > seconds:
                return True
    except (av.FFmpegError, OSError, ValueError, ArithmeticError):
        return False
    return False


def _send_sound(container: InputContainer, mixer: _Mixer, max_seconds: float) -> tuple[float, bool]:
    """Sends everything that can be decoded.

    Returns:
        Seconds of sound, and whether parts of it could not be read.

    Raises:
        TooLongError: If there is more than `max_seconds` of it.
    """
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        raise ValueError("the sound track is gone")
    stream.codec_context.thread_count = 1
    seconds = 0.0
    damage: list[Exception] = []
    for frame in _frames(container, stream, damage):
        if not 1000 <= frame.sample_rate <= 768_000:
            raise ValueError("no sound has this sample rate")
        seconds += frame.samples / frame.sample_rate
        # Encoders pad the end by up to a tenth of a second.
        if seconds > max_seconds + 0.1:
            raise TooLongError
        mixer.push(frame)
    mixer.finish()
    if damage and seconds == 0:
        raise damage[0]
    return seconds, bool(damage)


def _frames(container: InputContainer, stream: AudioStream, damage: list[Exception]) -> Iterator[AudioFrame]:
    """Frames of the sound track; what cannot be decoded is left out and noted in `damage`."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            if not isinstance(error, EOFError):
                damage.append(error)
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except EOFError:
            return
        except (av.FFmpegError, OSError, ValueError) as error:
            if isinstance(error, MemoryError):
                raise
            damage.append(error)
            continue
        for frame in frames:
            if isinstance(frame, AudioFrame) and frame.samples > 0:
                yield frame


class _Mixer:
    """Mixes frames of any kind down to one channel at one rate, and sends them."""

    def __init__(self, sink: Sink, rate: int) -> None:
        self._sink = sink
        self._rate = rate
        self._resampler: AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None

    def push(self, frame: AudioFrame) -> None:
        """Sends a frame; its kind may differ from the one before."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self.finish()
            self._kind = kind
            self._resampler = AudioResampler(format="s16", layout="mono", rate=self._rate)
        # Times are not needed, and wrong ones are refused.
        frame.pts = None
        self._send(frame)

    def finish(self) -> None:
        """Sends what the resampler still holds."""
        if self._resampler is not None:
            self._send(None)
            self._resampler = None

    def _send(self, frame: AudioFrame | None) -> None:
        if self._resampler is not None:
            for mixed in self._resampler.resample(frame):
                self._sink(bytes(mixed.planes[0])[: 2 * mixed.samples])


def _send(channel: socket.socket, kind: bytes, body: bytes) -> None:
    channel.sendall(kind + struct.pack("<I", len(body)) + body)


if __name__ == "__main__":
    main()
