"""A long render of real speech, other speakers and languages among it, said again and again.

What is said first and what is said last are the same sounds, so the same lips must follow them, at the same
distance: whatever drifts shows there.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import psutil
from viseme.host.v1 import host_pb2

from benchmarks._pictures import evenly, write_sheet
from benchmarks._report import Figure, Figures
from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.tools import Tools
from tests.render_process import RATE, RenderProcess, config

ByteArray = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.int16]
Doubles = npt.NDArray[np.float64]

_FPS = 25
_PER_FRAME = RATE // _FPS
_PAUSE = 20
"""Frames of silence after each piece of speech."""
_SETTLED = 60
"""Seconds of video after which everything was allocated: each sound was heard once by then."""
_MOST_GROWTH = 16
_MOST_LAG = 2
_LARGEST_LAG = 8
_SEEN = 6
_LEAD, _WINDOW = 25, 150
"""Frames after the start of a round, and those from which so many are shown."""


@dataclass
class Watched:
    """What came out of a render.

    Attributes:
        frames: How many.
        memory: Of the host in bytes, after each second of video.
        seconds: It took.
        pictures: Of the frames that were wanted, by their number.
        tracks: Seconds of video and of audio.
    """

    frames: int = 0
    memory: list[int] = field(default_factory=list)
    seconds: float = 0.0
    pictures: dict[int, ByteArray] = field(default_factory=dict)
    tracks: tuple[float, float] = (0.0, 0.0)


def read_speech(path: Path) -> Samples:
    """A sound file at the render's rate, mono, with a pause, in whole frames."""
    resampler = av.AudioResampler("s16", "mono", RATE)
    with av.open(str(path)) as container:
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    samples = np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.int16)
    length = -(-len(samples) // _PER_FRAME) + _PAUSE
    return np.pad(samples, (0, length * _PER_FRAME - len(samples)))


def render_speech(
    host: RenderProcess, bundle: Path, speech: Sequence[Samples], seconds: int, tools: Tools, output: Path
) -> Figures:
    """Renders the speech, repeated to about so many seconds, without its phonemes.

    Args:
        host: Hears lips in sound.
        bundle: The avatar.
        speech: Each piece in whole frames.
        seconds: Length, at least that of two rounds.
        tools: Find landmarks.
        output: Folder for `long_render.png`: frames of the beginning, the middle and the end.
    """
    round_ = sum(map(len, speech)) // _PER_FRAME
    rounds = max(2, round(seconds * _FPS / round_))
    first, last = range(round_), range((rounds - 1) * round_, rounds * round_)
    middle = rounds * round_ // 2
    shown = [range(start, start + _WINDOW) for start in (_LEAD, middle, last[0] + _LEAD)]
    wanted = {*first, *last, *(i for part in shown for i in part)}
    seen = _watch(host, bundle, speech, rounds, wanted)
    output.mkdir(parents=True, exist_ok=True)
    write_sheet(
        output / "long_render.png", [evenly([seen.pictures[i] for i in part], _SEEN) for part in shown]
    )
    opening = [_openings(tools, [seen.pictures[i] for i in part]) for part in (first, last)]
    sound = _loudness(np.concatenate(speech))
    settled = seen.memory[min(_SETTLED, len(seen.memory) - 1) :]
    note = f"{len(speech)} recordings, {rounds} times, {seen.frames / _FPS:.0f} s"
    figures = {
        "spoken_frames_missing": Figure(abs(seen.frames - rounds * round_), "frames", 0, note=note),
        "spoken_tracks_differ": Figure(_FPS * abs(seen.tracks[0] - seen.tracks[1]), "frames", 0.9999),
        "spoken_memory_grows": Figure(
            (max(settled) - settled[0]) / 2**20,
            "MiB",
            _MOST_GROWTH,
            note=f"{settled[0] / 2**20:.0f} MiB after {_SETTLED} s",
        ),
        "spoken_speed": Figure(seen.frames / seen.seconds, "frames/s"),
        "spoken_drift": Figure(
            abs(_lag(opening[1], opening[0])[0]), "frames", 0, note="the last round against the first"
        ),
        "spoken_last_like_first": Figure(
            float(np.corrcoef(opening[0], opening[1])[0, 1]), "correlation", 0.95, "at least"
        ),
    }
    for name, gap in zip(("beginning", "end"), opening, strict=True):
        lag, fit = _lag(gap, sound)
        figures[f"spoken_lag_{name}"] = Figure(
            lag, "frames", _MOST_LAG, note=f"lips after loudness, correlation {fit:.2f}"
        )
    return figures


def _watch(
    host: RenderProcess, bundle: Path, speech: Sequence[Samples], rounds: int, wanted: set[int]
) -> Watched:
    def requests() -> Iterator[host_pb2.RenderRequest]:
        yield config(bundle)
        for _ in range(rounds):
            for samples in speech:
                for start in range(0, len(samples), RATE):
                    piece = samples[start : start + RATE]
                    yield host_pb2.RenderRequest(
                        speech=host_pb2.RenderRequest.Speech(
                            pcm=piece.astype("<i2").tobytes(), end_of_sentence=start + RATE >= len(samples)
                        )
                    )

    process = psutil.Process(host.process.pid)
    seen, head, begun = Watched(), b"", time.monotonic()
    pictures = _Pictures(wanted)
    for response in host.render.Render(requests()):
        fragment = response.fragment
        if not fragment.data:
            continue
        if not head:
            head = fragment.data
            continue
        pictures.look(seen, head + fragment.data)
        seen.frames += fragment.frame_count
        while len(seen.memory) <= seen.frames // _FPS:
            seen.memory.append(process.memory_info().rss)
    pictures.end(seen)
    seen.seconds = time.monotonic() - begun
    return seen


class _Pictures:
    """Decodes a video that comes in fragments, each begun with the head of the file."""

    def __init__(self, wanted: set[int]) -> None:
        self._wanted = wanted
        self._decoder: av.VideoCodecContext | None = None
        self._decoded = 0

    def look(self, seen: Watched, data: bytes) -> None:
        """Reads a fragment behind the head: its times, and the pictures that are wanted."""
        with av.open(io.BytesIO(data), "r") as container:
            for packet in container.demux():
                if packet.pts is None or packet.duration is None or packet.time_base is None:
                    continue
                end = float((packet.pts + packet.duration) * packet.time_base)
                video, audio = seen.tracks
                if packet.stream.type == "video":
                    seen.tracks = max(video, end), audio
                    self._decode(seen, packet, container.streams.video[0].codec_context.extradata)
                else:
                    seen.tracks = video, max(audio, end)

    def end(self, seen: Watched) -> None:
        """The last pictures."""
        self._decode(seen, None, None)

    def _decode(self, seen: Watched, packet: av.Packet[Any] | None, head: bytes | None) -> None:
        # One decoder for all fragments: most do not begin with a whole picture.
        if self._decoder is None:
            decoder = av.CodecContext.create("h264", "r")
            assert isinstance(decoder, av.VideoCodecContext)
            decoder.extradata = head
            self._decoder = decoder
        for frame in self._decoder.decode(packet):
            if self._decoded in self._wanted:
                seen.pictures[self._decoded] = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            self._decoded += 1


def _openings(tools: Tools, pictures: Sequence[ByteArray]) -> Doubles:
    """Gap between the lips in pixels, [T]."""
    with tools.watcher(faces=1) as watcher:
        points = np.stack([watcher.faces(picture)[0].points[:, :2] for picture in pictures])
    gap = points[:, face.UPPER_LIP] - points[:, face.LOWER_LIP]
    return np.asarray(np.linalg.norm(gap, axis=1), np.float64)


def _loudness(samples: Samples) -> Doubles:
    """Amplitude of each frame's sound, [T]."""
    value = samples.reshape(-1, _PER_FRAME).astype(np.float64)
    return np.asarray(np.sqrt((value**2).mean(1)))


def _lag(found: Doubles, truth: Doubles) -> tuple[int, float]:
    """Frames by which `found` is late, and the correlation there."""
    fits = {}
    for lag in range(-_LARGEST_LAG, _LARGEST_LAG + 1):
        late = found[max(0, lag) : len(found) + min(0, lag)]
        early = truth[max(0, -lag) : len(truth) - max(0, lag)]
        fits[lag] = float(np.corrcoef(late, early)[0, 1])
    best = max(fits, key=lambda lag: fits[lag])
    return best, fits[best]
