"""How well lips follow a recording, in the space of landmarks: what a viewer sees of a lip code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.training.lips_metrics import best_lag

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MouthLayout:
    """Which landmark is which.

    Attributes:
        upper: Middle of the inner margin of the upper lip.
        lower: Middle of the inner margin of the lower lip.
        corners: The two corners of the mouth.
        lips: Landmarks of both lips, for the distance.
    """

    upper: int
    lower: int
    corners: tuple[int, int]
    lips: tuple[int, ...]

    def opening(self, points: npt.ArrayLike) -> Doubles:
        """Gap between the lips, `[T]`, of landmarks `[T, P, 2]`."""
        flat = np.asarray(points, np.float64)
        return np.asarray(np.linalg.norm(flat[:, self.upper] - flat[:, self.lower], axis=1))

    def width(self, points: npt.ArrayLike) -> Doubles:
        """Width of the mouth, `[T]`, of landmarks `[T, P, 2]`."""
        flat = np.asarray(points, np.float64)
        return np.asarray(np.linalg.norm(flat[:, self.corners[0]] - flat[:, self.corners[1]], axis=1))


@dataclass(frozen=True)
class LandmarkMetrics:
    """Figures over the frames of a clip.

    Attributes:
        opening: Correlation of the gap between the lips.
        opening_ratio: Its deviation over the true one.
        width: Correlation of the mouth's width.
        width_ratio: Its deviation over the true one.
        lag_frames: Shift of the gap that fits best; positive means late.
        distance: Mean distance of the lips' landmarks, each frame's centred on its own middle (LMD).
        distance_in_place: The same without centring.
    """

    opening: float
    opening_ratio: float
    width: float
    width_ratio: float
    lag_frames: int
    distance: float
    distance_in_place: float


def measure_landmarks(found: npt.ArrayLike, truth: npt.ArrayLike, layout: MouthLayout) -> LandmarkMetrics:
    """Compares un-posed landmarks `[T, P, 2]`; distances are in their unit."""
    one, other = np.asarray(found, np.float64), np.asarray(truth, np.float64)
    gap, true_gap = layout.opening(one), layout.opening(other)
    width, true_width = layout.width(one), layout.width(other)
    lips, true_lips = one[:, layout.lips], other[:, layout.lips]
    centred = lips - lips.mean(1, keepdims=True) - true_lips + true_lips.mean(1, keepdims=True)
    return LandmarkMetrics(
        float(np.corrcoef(gap, true_gap)[0, 1]),
        float(gap.std() / true_gap.std()),
        float(np.corrcoef(width, true_width)[0, 1]),
        float(width.std() / true_width.std()),
        best_lag(gap, true_gap, 4),
        float(np.linalg.norm(centred, axis=2).mean()),
        float(np.linalg.norm(lips - true_lips, axis=2).mean()),
    )


class LandmarkDecoder:
    """Lip codes back to landmarks, by regression on the training frames.

    Args:
        codes: Lip codes `[T, L]`.
        points: Un-posed landmarks `[T, P, 2]` of the same frames.
    """

    def __init__(self, codes: npt.ArrayLike, points: npt.ArrayLike) -> None:
        flat = np.asarray(points, np.float64)
        inputs = _with_one(codes)
        self._shape = flat.shape[1:]
        weight = np.linalg.lstsq(inputs, flat.reshape(len(flat), -1), rcond=None)[0]
        self._weight = np.asarray(weight, np.float64)

    def landmarks(self, codes: npt.ArrayLike) -> Doubles:
        """Landmarks `[T, P, 2]` of lip codes `[T, L]`."""
        return np.asarray((_with_one(codes) @ self._weight).reshape(-1, *self._shape))


def _with_one(codes: npt.ArrayLike) -> Doubles:
    values = np.asarray(codes, np.float64)
    return np.concatenate([values, np.ones((len(values), 1))], 1)
