"""The three stages: what each draws, learns and looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet
from model_hosts.talking_gaussian.training.settings import Settings

_CURRICULUM = 0.3
"""Share of the face stage in which frames of ever wider mouths join."""
_FIRST_FRAMES = 0.3
_BLINKS = 0.08
"""Share of the frames looked at in which the eyes are shut: a clip of 20 s may show one blink."""
_BLINKING, _SHUT = 2.0, 0.4
"""Deviations from which a lid blinks at all, and the share of its furthest from which it is shut."""


@dataclass(frozen=True)
class Stage:
    """One of mouth, face, fuse.

    Attributes:
        name: Its name in progress and metadata.
        steps: Its length.
        branches: What is drawn and learnt.
        first_rate, last_rate: Factor of the learning rates at its start and end; exponential between.
    """

    name: str
    steps: int
    branches: tuple[str, ...]
    first_rate: float
    last_rate: float


def stages(settings: Settings) -> tuple[Stage, ...]:
    """The stages in their order."""
    return (
        Stage("mouth", settings.mouth_steps, ("mouth",), 1.0, 0.1),
        Stage("face", settings.face_steps, ("face", "torso"), 1.0, 0.15),
        Stage("fuse", settings.fuse_steps, ("face", "mouth", "torso"), 0.5, 0.02),
    )


class Sampler:
    """Which frames a step looks at.

    A function of seed, stage and step only, so a resumed training goes on with the frames it would have seen.
    """

    def __init__(self, data: TrainingSet, settings: Settings) -> None:
        self._training = data.training
        self._seed = settings.seed
        opening = data.opening[data.training]
        self._by_opening = np.argsort(opening, kind="stable")
        unusual = (data.lip[data.training] ** 2).mean(1) + 0.5 * (data.expression[data.training] ** 2).mean(1)
        ranks = np.empty(len(opening))
        ranks[self._by_opening] = np.linspace(0, 1, len(opening))
        # Wide mouths, blinks and strong expressions are rare and the first thing that people notice when they
        # are wrong.
        weight = np.clip(0.5 + unusual, 0.7, 6.0) + 0.5 * (ranks < 0.1)
        weight = _with_share(weight, shut(data)[data.training], _BLINKS)
        self._chance = weight / weight.sum()
        visible = np.maximum(opening - 0.5 * float(np.median(opening)), 0)
        self._mouth_chance = visible / visible.sum() if visible.any() else self._chance

    def frames(self, stage: Stage, step: int, batch: int) -> npt.NDArray[np.int64]:
        """Indices [batch] of the frames of a step."""
        rng = np.random.default_rng([self._seed, *stage.name.encode(), step])
        count = len(self._training)
        if stage.name == "mouth":
            picks = rng.choice(count, batch, p=self._mouth_chance)
        elif stage.name == "face" and step < _CURRICULUM * stage.steps:
            share = _FIRST_FRAMES + (1 - _FIRST_FRAMES) * step / (_CURRICULUM * stage.steps)
            picks = rng.choice(self._by_opening[: max(batch, int(share * count))], batch)
        else:
            picks = rng.choice(count, batch, p=self._chance)
        chosen: npt.NDArray[np.int64] = self._training[picks]
        return chosen


def shut(data: TrainingSet) -> npt.NDArray[np.bool_]:
    """Frames in which the eyes are shut, or nearly, bool [T]."""
    lids = [name.startswith("blink") for name in data.maps.expression_names]
    down = data.expression[:, lids].min(1)
    furthest = float(down[data.training].max())
    closed: npt.NDArray[np.bool_] = down > max(_BLINKING, _SHUT * furthest)
    return closed


def _with_share(
    weight: npt.NDArray[np.float64], rare: npt.NDArray[np.bool_], share: float
) -> npt.NDArray[np.float64]:
    """The weights, those of rare frames raised until these have at least their share."""
    own, others = float(weight[rare].sum()), float(weight[~rare].sum())
    if not own or not others:
        return weight
    raised = max(1.0, share / (1 - share) * others / own)
    return np.where(rare, raised * weight, weight)
