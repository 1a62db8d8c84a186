"""What the doubles of the speaking and drawing hosts make: tones for words, grey pictures for faces."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from viseme.host.v1 import host_pb2

RATE = 24000
FPS = 25
_WORD_SECONDS = 0.12


def speak(text: str) -> tuple[npt.NDArray[np.int16], list[host_pb2.Phoneme]]:
    """A tone that begins and ends loudly, and a phoneme for each word: samples int16 [n] at 24 kHz."""
    words = text.split() or [text]
    time = np.arange(round(_WORD_SECONDS * RATE) * len(words)) / RATE
    samples = (8000 * np.sin(2 * np.pi * (180 + len(text)) * time + 1.0)).astype(np.int16)
    phonemes = [
        host_pb2.Phoneme(
            symbol="a", start_seconds=index * _WORD_SECONDS, end_seconds=(index + 1) * _WORD_SECONDS, stress=2
        )
        for index in range(len(words))
    ]
    return samples, phonemes


def speech_seconds(samples: npt.NDArray[np.int16], rate: int) -> float:
    """Seconds in which anything is to be heard."""
    block = rate // 50
    blocks = samples[: len(samples) // block * block].reshape(-1, block).astype(np.float64)
    return float(np.count_nonzero(np.sqrt(np.mean(blocks**2, axis=1)) > 100) / 50) if len(blocks) else 0.0


@dataclass
class Piece:
    """A fragment of video."""

    data: bytes
    first_frame: int
    frame_count: int


class Film:
    """Writes a real fragmented MP4 of H.264 and AAC, each fragment as soon as its sound is there.

    Args:
        rate: Samples a second.
        size: Width and height in pixels.
        lookahead: Frames that are held back until their future is known.
    """

    def __init__(self, rate: int, size: int = 64, lookahead: int = 3) -> None:
        self._rate, self._size, self._lookahead = rate, size, lookahead
        self._file = _Sink()
        self._container = av.open(
            self._file, "w", format="mp4", options={"movflags": "empty_moov+default_base_moof+frag_keyframe"}
        )
        video = self._container.add_stream(
            "libx264", rate=FPS, options={"preset": "ultrafast", "tune": "zerolatency", "g": "5"}
        )
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        self._video = video
        self._audio = self._container.add_stream("aac", rate=rate, layout="mono")
        self._samples = np.zeros(0, np.int16)
        self.frames = 0
        self.sample_count = 0
        self._coded = 0
        self._given = 0

    def begin(self) -> Piece:
        """The header."""
        self._container.start_encoding()
        return Piece(self._file.take(), 0, 0)

    def add(self, samples: npt.NDArray[np.int16]) -> Piece | None:
        """Takes sound; gives the frames that are certain now."""
        self._samples = np.concatenate([self._samples, samples])
        self.sample_count += len(samples)
        return self._draw(self.sample_count * FPS // self._rate - self._lookahead, last=False)

    def finish(self) -> Piece | None:
        """The frames that are left."""
        return self._draw(-(-self.sample_count * FPS // self._rate), last=True)

    def _draw(self, until: int, *, last: bool) -> Piece | None:
        for index in range(self.frames, until):
            picture = np.full((self._size, self._size, 3), 40 + index * 5 % 160, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            self._container.mux(self._video.encode(frame))
            self.frames += 1
        end = self.sample_count if last else max(self._coded, self.frames * self._rate // FPS)
        block = self._samples[: end - self._coded]
        self._samples = self._samples[end - self._coded :]
        if len(block):
            sound = av.AudioFrame.from_ndarray(
                (block / 32768).astype(np.float32)[None], format="fltp", layout="mono"
            )
            sound.sample_rate, sound.pts, sound.time_base = self._rate, self._coded, Fraction(1, self._rate)
            self._container.mux(self._audio.encode(sound))
            self._coded = end
        if last:
            self._container.mux(self._video.encode(None))
            self._container.mux(self._audio.encode(None))
            self._container.close()
        data = self._file.take()
        if not data:
            return None
        piece = Piece(data, self._given, _count_frames(data))
        self._given += piece.frame_count
        return piece


def _count_frames(data: bytes) -> int:
    """Video frames in the fragments: the sample counts of track 1, from tfhd and the trun after it."""
    count, position = 0, 0
    while (position := data.find(b"tfhd", position)) >= 0:
        track = int.from_bytes(data[position + 8 : position + 12], "big")
        run = data.find(b"trun", position)
        if track == 1:
            count += int.from_bytes(data[run + 8 : run + 12], "big")
        position = run
    return count


class _Sink(io.RawIOBase):
    """A file that can only be appended to, like a socket."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._data += bytes(data)
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._data)
        self._data.clear()
        return data
