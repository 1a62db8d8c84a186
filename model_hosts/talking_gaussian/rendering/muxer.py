"""The clock of a reply: encoded frames and speech as fragments in which frame k shows audio time k/25.

Time is counted in whole frames and whole samples, never in seconds, so nothing drifts over any length.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.bundle import FPS
from model_hosts.talking_gaussian.rendering import boxes
from model_hosts.talking_gaussian.rendering.boxes import Sample, TrackRun
from model_hosts.talking_gaussian.rendering.encoder import AAC_FRAME, AudioEncoder, VideoEncoder
from model_hosts.talking_gaussian.rendering.rasteriser import YuvImage

VIDEO_TIMESCALE = FPS * 512
_FRAME = VIDEO_TIMESCALE // FPS
FIRST_FRAGMENT = 6
"""Frames of the first fragment: few, so that a viewer sees the face soon."""
FRAGMENT = 12
"""Frames of the other fragments."""


@dataclass(frozen=True)
class Fragment:
    """A piece of a fragmented MP4 and the frames in it."""

    data: bytes
    first_frame: int
    frame_count: int


class Muxer:
    """Encodes and muxes one reply, in constant memory as long as audio and frames arrive side by side.

    Args:
        width: Of the video in pixels.
        height: Of the video in pixels.
        sample_rate: Of the speech; one of AAC_RATES.
    """

    def __init__(self, width: int, height: int, sample_rate: int) -> None:
        self._video = VideoEncoder(width, height)
        self._audio = AudioEncoder(sample_rate)
        self._rate = sample_rate
        self._width, self._height = width, height
        self._pictures: list[Sample] = []
        self._sounds: deque[bytes] = deque()
        self._frames_out = 0
        self._sounds_out = 0
        self._samples = 0
        self._sequence = 0

    @property
    def frame_count(self) -> int:
        """Frames taken so far."""
        return self._frames_out + len(self._pictures)

    @property
    def sample_count(self) -> int:
        """Samples of speech taken so far."""
        return self._samples

    def start(self) -> Fragment:
        """The head of the file: `ftyp` and `moov`."""
        data = boxes.file_type() + boxes.movie(
            boxes.video_track(self._width, self._height, VIDEO_TIMESCALE, self._video.parameter_sets),
            boxes.audio_track(
                self._rate, self._audio.specific_config, self._audio.bit_rate, priming=AAC_FRAME
            ),
        )
        return Fragment(data, 0, 0)

    def add_speech(self, samples: npt.NDArray[np.int16]) -> None:
        """Takes the next speech, int16 mono."""
        self._samples += len(samples)
        self._sounds.extend(self._audio.push(samples))

    def add_frame(self, image: YuvImage) -> Fragment | None:
        """Takes the next frame; returns a fragment when one is full."""
        picture = self._video.encode(image)
        self._pictures.append(Sample(boxes.length_prefixed(picture.data), _FRAME, picture.key))
        size = FIRST_FRAGMENT if self._frames_out == 0 else FRAGMENT
        return self._fragment(False) if len(self._pictures) >= size else None

    def flush(self) -> Fragment | None:
        """The frames that wait for a fragment to be full, as a fragment now."""
        return self._fragment(False) if self._pictures else None

    def finish(self) -> Fragment | None:
        """The last fragment: the rest of frames and speech."""
        self._sounds.extend(self._audio.finish())
        return self._fragment(True)

    def _fragment(self, last: bool) -> Fragment | None:
        """What is ready: all frames, and the speech that begins while they are shown."""
        first = self._frames_out
        end = first + len(self._pictures)
        sounds: list[Sample] = []
        total = AAC_FRAME + self._samples
        while self._sounds:
            start = (self._sounds_out + len(sounds)) * AAC_FRAME
            # Media time includes the priming frame: sample s of the speech is at AAC_FRAME + s.
            if not last and (start - AAC_FRAME) * FPS >= end * self._rate:
                break
            data = self._sounds.popleft()
            length = min(AAC_FRAME, total - start) if last else AAC_FRAME
            if length > 0:
                sounds.append(Sample(data, length))
        if not self._pictures and not sounds:
            return None
        self._sequence += 1
        data = boxes.fragment(
            self._sequence,
            [
                TrackRun(boxes.VIDEO_TRACK, first * _FRAME, self._pictures),
                TrackRun(boxes.AUDIO_TRACK, self._sounds_out * AAC_FRAME, sounds),
            ],
        )
        self._frames_out = end
        self._sounds_out += len(sounds)
        self._pictures = []
        return Fragment(data, first, end - first)
