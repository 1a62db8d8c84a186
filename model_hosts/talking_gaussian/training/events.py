"""What a training tells while it runs: a stream of typed events."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

NoteKind = Literal[
    "resumed",
    "checkpoint_damaged",
    "started_anew",
    "checkpoint_failed",
    "batch_halved",
    "rolled_back",
    "stage_skipped",
]


class Outcome(enum.Enum):
    """How a run ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    """On request, at a step boundary; running again goes on from the checkpoint."""


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes:
        stage: mouth, face or fuse.
        step, steps: Of this stage.
        done, total: Steps of all stages.
        loss: Of the latest step.
        psnr: Of the latest step's frames, dB; in stage mouth of the mouth's inside only.
        seconds_left: Estimate for all stages, each at its own measured speed.
    """

    stage: str
    step: int
    steps: int
    done: int
    total: int
    loss: float
    psnr: float
    seconds_left: float

    @property
    def fraction(self) -> float:
        """Share of all steps that is done, 0..1; never falls unless a training is rolled back."""
        return self.done / self.total


@dataclass(frozen=True)
class StageMetrics:
    """How a stage ended.

    Attributes:
        stage: Its name.
        metrics: PSNR in dB on held-out frames of what the stage draws: mouth (its inside), and from stage
            face on head, lips and psnr (everything). A region that no held-out frame shows is left out.
        gaussians: How many each branch has now.
        seconds: How long the stage took, over all runs of the training.
    """

    stage: str
    metrics: dict[str, float]
    gaussians: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Preview:
    """A picture to watch: always the same held-out frame.

    Attributes:
        stage, step: When it was drawn.
        frame: Index of the frame in the clip.
        picture: uint8 [H, 2 W, 3], the truth on the left and the avatar on the right.
    """

    stage: str
    step: int
    frame: int
    picture: npt.NDArray[np.uint8] = field(repr=False)


@dataclass(frozen=True)
class Note:
    """Something that happened to a training and that its owner should know.

    Attributes:
        kind: For programs.
        message: For people, one sentence.
    """

    kind: NoteKind
    message: str


Event = Progress | StageMetrics | Preview | Note

_NAMES = {Progress: "progress", StageMetrics: "stage", Preview: "preview", Note: "note"}


def as_json(event: Event) -> dict[str, Any]:
    """An event as a JSON object with its name under `event`; of a preview all but the picture."""
    if isinstance(event, Preview):
        values: dict[str, Any] = {"stage": event.stage, "step": event.step, "frame": event.frame}
    else:
        values = asdict(event)
    if isinstance(event, Progress):
        values["fraction"] = round(event.fraction, 6)
    return {"event": _NAMES[type(event)], **values}
