"""What the renderer needs to know of each video frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]

POSE_SIZE = 6
TORSO_TRACK_SIZE = 4


@dataclass(frozen=True, slots=True)
class FrameState:
    """Conditions of `T` consecutive video frames, float32.

    Attributes:
        lip: `[T, L]` lip code, unit deviation over the training clip.
        expression: `[T, E]` upper-face units, in the order of the bundle's `expression_names`.
        pose: `[T, 6]` head pose against the mean pose: rotation vector about the camera axes in radians, then
            translation in metres.
        torso_track: `[T, 4]` 2-D similarity of the torso against its rest place.
    """

    lip: Floats
    expression: Floats
    pose: Floats
    torso_track: Floats

    def __len__(self) -> int:
        return len(self.lip)

    def __getitem__(self, part: slice) -> FrameState:
        return FrameState(self.lip[part], self.expression[part], self.pose[part], self.torso_track[part])

    @classmethod
    def empty(cls, lip_size: int, expression_size: int) -> FrameState:
        """No frames, of an avatar with these code sizes."""
        return cls(
            np.zeros((0, lip_size), np.float32),
            np.zeros((0, expression_size), np.float32),
            np.zeros((0, POSE_SIZE), np.float32),
            np.zeros((0, TORSO_TRACK_SIZE), np.float32),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[FrameState]) -> FrameState:
        """The frames of all `parts` in order; there must be at least one part."""
        return cls(
            np.concatenate([part.lip for part in parts]),
            np.concatenate([part.expression for part in parts]),
            np.concatenate([part.pose for part in parts]),
            np.concatenate([part.torso_track for part in parts]),
        )
