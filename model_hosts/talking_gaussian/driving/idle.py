"""How one recorded person holds still: a stretch of the recording that is shown over and over."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.bundle import Bundle, BundleInvalid
from model_hosts.talking_gaussian.driving.state import POSE_SIZE, TORSO_TRACK_SIZE
from model_hosts.talking_gaussian.driving.units import UNIT_NAMES

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

MOST_FRAMES = 1500
_CALM = 0.4
"""Share of the recorded motion in silence: few people are recorded while they say nothing."""


@dataclass(frozen=True)
class IdleMotion:
    """`M` frames whose end leads into their start; what a bundle stores under `idle.*`.

    Attributes:
        pose: Head pose vectors as in FrameState, `[M, 6]`.
        units: Face units without blinks, `[M, 52]`.
        track: Torso track as in FrameState, `[M, 4]`.
    """

    pose: Floats
    units: Floats
    track: Floats

    def __len__(self) -> int:
        return len(self.pose)

    @classmethod
    def of(cls, bundle: object) -> IdleMotion | None:
        """That of a bundle, or None when it has no `idle.*` or is of another kind.

        Raises:
            BundleInvalid: A tensor is missing, unknown or of a wrong shape.
        """
        if not isinstance(bundle, Bundle):
            return None
        tensors = bundle.group("idle.")
        if not tensors:
            return None
        names = {field.name for field in fields(cls)}
        for name in sorted(names ^ tensors.keys()):
            state = "unknown" if name in tensors else "missing"
            raise BundleInvalid(f"model.safetensors: idle.{name} is {state}")
        idle = cls(**{name: np.asarray(value, np.float32) for name, value in tensors.items()})
        idle.check()
        return idle

    def check(self) -> None:
        """Checks that the tensors fit together.

        Raises:
            BundleInvalid: They do not.
        """
        count = len(self.pose)
        if not 1 <= count <= MOST_FRAMES:
            raise BundleInvalid(f"model.safetensors: idle.pose must have 1 to {MOST_FRAMES} frames")
        for name, width in (("pose", POSE_SIZE), ("units", len(UNIT_NAMES)), ("track", TORSO_TRACK_SIZE)):
            found = getattr(self, name).shape
            if found != (count, width):
                raise BundleInvalid(
                    f"model.safetensors: idle.{name} is {list(found)}, but must be {[count, width]}"
                )

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What a bundle stores, by name."""
        return {f"idle.{field.name}": np.asarray(getattr(self, field.name)) for field in fields(self)}

    def at(self, first: int, activity: npt.ArrayLike) -> tuple[Doubles, Doubles, Doubles]:
        """Pose `[T, 6]`, units `[T, 52]` and track `[T, 4]` of a video's frames from `first` on.

        Args:
            first: Number of the first frame.
            activity: `[T]` 0 in silence, where the motion is smaller, to 1 in speech.
        """
        lively = np.asarray(activity, np.float64)[:, None]
        rows = np.arange(first, first + len(lively)) % len(self)
        share = _CALM + (1.0 - _CALM) * lively
        pose, units, track = (
            mean + share * (values[rows] - mean)
            for values, mean in ((values, values.mean(0)) for values in (self.pose, self.units, self.track))
        )
        return pose, units, track
