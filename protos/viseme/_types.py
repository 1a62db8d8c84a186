"""Values that clients get: events of a reply, replies, avatars and the work on them, hosts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from viseme._errors import VisemeError


@dataclass(frozen=True)
class Progress:
    """A stage began or ended.

    Attributes:
        stage: `decode`, `transcribe`, `reply`, `speak`, `render` or `finish`.
        finished: Whether it ended.
        elapsed: Seconds since the whole request had arrived.
    """

    stage: str
    finished: bool
    elapsed: float


@dataclass(frozen=True)
class Transcript:
    """What was heard.

    Attributes:
        text: What the user said.
        language: BCP 47 tag.
        damaged: Whether part of the recording could not be read and was left out.
    """

    text: str
    language: str
    damaged: bool = False


@dataclass(frozen=True)
class Sentence:
    """A sentence of the reply is handed to the voice."""

    index: int
    text: str


@dataclass(frozen=True)
class Fragment:
    """A piece of a fragmented MP4: joined in order, the pieces play from the first one on.

    Attributes:
        data: The bytes.
        first_frame: Index of its first video frame.
        frame_count: Number of its video frames; 0 for the first piece, which is the header.
    """

    data: bytes = field(repr=False)
    first_frame: int
    frame_count: int


@dataclass(frozen=True)
class VideoPiece:
    """A piece of the finished MP4."""

    data: bytes = field(repr=False)


@dataclass(frozen=True)
class StageTiming:
    """When a stage began, gave its first output and ended: seconds since the whole request had arrived."""

    stage: str
    start: float
    first_output: float | None
    end: float | None


@dataclass(frozen=True)
class Reply:
    """A finished reply.

    Attributes:
        video: The MP4; empty when it was saved to a file while it arrived.
        path: Where it was saved, or None.
        text: What the avatar says.
        transcript: What was heard; empty for a typed text.
        language: BCP 47 tag of what was heard.
        provider: The language model that wrote the reply, `PROVIDER/MODEL`.
        frame_count: Frames of the video.
        audio_seconds: Length of its sound track.
        truncated: Whether the language model broke off, so that the reply ends at its last full sentence.
        timings: One entry a stage, in the order they began.
    """

    video: bytes = field(repr=False)
    path: Path | None
    text: str
    transcript: str
    language: str
    provider: str
    frame_count: int
    audio_seconds: float
    truncated: bool
    timings: tuple[StageTiming, ...]

    def save(self, path: str | PathLike[str]) -> Path:
        """Writes the MP4 to a file.

        Raises:
            ValueError: It was already saved to another file while it arrived.
            OSError: The file cannot be written.
        """
        if not self.video:
            raise ValueError(f"The video is not in memory; it was saved to {self.path}.")
        target = Path(path)
        target.write_bytes(self.video)
        return target


@dataclass(frozen=True)
class RenderSummary:
    """The end of a render: frames, seconds of sound, one entry a stage."""

    frame_count: int
    audio_seconds: float
    timings: tuple[StageTiming, ...]


@dataclass(frozen=True)
class Finding:
    """What was found in a recording.

    Attributes:
        code: UPPER_SNAKE, such as `FACE_SMALL`.
        message: One sentence: what is the matter.
        fix: One sentence: what to do.
        refused: Whether the recording cannot be used because of it.
    """

    code: str
    message: str
    fix: str
    refused: bool


@dataclass(frozen=True)
class Avatar:
    """A talking head; the attributes are those of `viseme.v1.Avatar`, `state` as in `READY`."""

    name: str
    display_name: str
    description: str
    synthetic: bool
    width: int
    height: int
    fps: int
    audio_encoder: str
    gaussian_count: int
    size_bytes: int
    license: str
    create_time: datetime
    default_voice: str
    thumbnail: bytes = field(repr=False)
    state: str
    operation: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class AvatarPreview:
    """A picture of an avatar in the making.

    Attributes:
        image: A PNG.
        create_time: When it was made.
    """

    image: bytes = field(repr=False)
    create_time: datetime


@dataclass(frozen=True)
class Operation:
    """Work on an avatar, as it was when the server was asked.

    Attributes:
        name: `operations/{operation}`.
        done: Whether it ended; then there is either `error` or `avatar`.
        error: Why it failed, or None.
        avatar: What came of it, or None.
        avatar_name: `avatars/{avatar}`, the avatar that is worked on.
        task: `prepare` or `train`.
        stage: What is being done: a step of the preparation, or `mouth`, `face` or `fuse`.
        step: Steps of the stage that are done.
        steps: Steps of the stage in all; 0 while nobody knows.
        fraction: Share of the whole operation that is done, 0 to 1.
        remaining: Seconds that the rest will take, or None while nobody knows.
        loss: Of the latest step, or None before the first.
        psnr: Of the latest frames, dB, or None before the first.
        device: What it runs on: `cpu`, or the GPU's name.
        message: The latest thing worth telling, one sentence.
        attempt: How often it was begun: 2 after one interruption.
        create_time: When it was asked for.
        start_time: When work on it began, most recently; None while it waits.
    """

    name: str
    done: bool
    error: VisemeError | None
    avatar: Avatar | None
    avatar_name: str
    task: str
    stage: str
    step: int
    steps: int
    fraction: float
    remaining: float | None
    loss: float | None
    psnr: float | None
    device: str
    message: str
    attempt: int
    create_time: datetime
    start_time: datetime | None


@dataclass(frozen=True)
class LogLine:
    """Something worth knowing about an operation.

    Attributes:
        time: When it was written.
        text: One line.
    """

    time: datetime
    text: str


@dataclass(frozen=True)
class Host:
    """A model host; the attributes are those of `viseme.v1.Host`, `state` as in `READY`."""

    name: str
    state: str
    capabilities: tuple[str, ...]
    pid: int | None
    memory_bytes: int
    restart_count: int
    start_time: datetime | None
    problem: str
    fix: str
    python_version: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Gpu:
    """A device that models run on; the attributes are those of `viseme.v1.Gpu`.

    `utilisation` is None where nobody tells.
    """

    name: str
    index: int
    instance: int
    display_name: str
    total_bytes: int
    free_bytes: int
    reserved_bytes: int
    foreign_bytes: int
    utilisation: float | None
    problem: str
    draining: bool


@dataclass(frozen=True)
class Lease:
    """Memory of a device that somebody holds or waits for.

    The attributes are those of `viseme.v1.Lease`, `work` and `state` as in `TRAINING` and `WAITING`, `age` in
    seconds.
    """

    name: str
    holder: str
    gpu: str
    work: str
    state: str
    bytes: int
    tenant: str
    preemptible: bool
    age: float
    explanation: str


@dataclass(frozen=True)
class ServerStatus:
    """How a server is doing; the attributes are those of `viseme.v1.Status`."""

    version: str
    start_time: datetime
    active_requests: int
    memory_bytes: int
    home: str
    llm_providers: tuple[str, ...]


Event = Union[Progress, Transcript, Sentence, Fragment, VideoPiece, Reply]
"""What `stream_reply` gives; the last one is a `Reply`."""
