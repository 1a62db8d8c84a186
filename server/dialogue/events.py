"""What a turn or a render tells while it runs, and the clock its stages are timed with."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["decode", "transcribe", "reply", "speak", "render", "finish"]


@dataclass(frozen=True, slots=True)
class StageChanged:
    """A stage began or ended, `elapsed` seconds after the whole request had arrived."""

    stage: Stage
    finished: bool
    elapsed: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard: the text, its BCP 47 tag, and whether part of the recording could not be read."""

    text: str
    language: str
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class SentenceBegun:
    """A sentence of the reply is handed to the voice."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class FragmentDrawn:
    """A piece of a fragmented MP4; `frame_count` is 0 in the first, which is the header."""

    data: bytes
    first_frame: int
    frame_count: int


@dataclass(frozen=True, slots=True)
class FilePiece:
    """A piece of the finished MP4, in order."""

    data: bytes


@dataclass(slots=True)
class StageTimes:
    """When a stage began, gave its first output and ended: seconds since the whole request had arrived."""

    stage: Stage
    start: float
    first_output: float | None = None
    end: float | None = None


@dataclass(frozen=True, slots=True)
class TurnDone:
    """The last event of a turn.

    Attributes:
        text: The whole reply as it was spoken.
        provider: `PROVIDER/MODEL` that wrote it.
        frame_count: Frames of the video.
        audio_seconds: Length of its sound track.
        size_bytes: Size of the finished MP4.
        sha256: Its SHA-256, lower-case hexadecimal.
        truncated: Whether the language model broke off.
        timings: One entry a stage, in the order they began.
    """

    text: str
    provider: str
    frame_count: int
    audio_seconds: float
    size_bytes: int
    sha256: str
    truncated: bool
    timings: tuple[StageTimes, ...]


@dataclass(frozen=True, slots=True)
class RenderDone:
    """The last event of a render: frames, seconds of sound, one entry a stage."""

    frame_count: int
    audio_seconds: float
    timings: tuple[StageTimes, ...]


Event = StageChanged | Heard | SentenceBegun | FragmentDrawn | FilePiece | TurnDone | RenderDone
Emit = Callable[[Event], Awaitable[None]]
"""Takes an event; waits while whoever receives them is behind."""


@dataclass(slots=True)
class Stopwatch:
    """Times the stages of one request and tells when they begin and end.

    Attributes:
        emit: Where `StageChanged` events go.
        stages: The stages so far, in the order they began.
    """

    emit: Emit
    stages: dict[Stage, StageTimes] = field(default_factory=dict)
    _origin: float = field(default_factory=time.monotonic)

    def restart(self) -> None:
        """Sets the clock to zero: the whole request has arrived."""
        self._origin = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the whole request had arrived."""
        return time.monotonic() - self._origin

    async def begin(self, stage: Stage) -> None:
        """A stage begins."""
        times = self.stages[stage] = StageTimes(stage, self.elapsed())
        await self.emit(StageChanged(stage, finished=False, elapsed=times.start))

    def output(self, stage: Stage) -> None:
        """A stage has given something; only the first time counts."""
        times = self.stages[stage]
        if times.first_output is None:
            times.first_output = self.elapsed()

    async def end(self, stage: Stage) -> None:
        """A stage ends."""
        times = self.stages[stage]
        times.end = self.elapsed()
        await self.emit(StageChanged(stage, finished=True, elapsed=times.end))
