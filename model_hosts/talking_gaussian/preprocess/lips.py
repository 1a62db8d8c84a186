"""The lip code of a recording: what its lips and chin do, free of the head's motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.poses import to_head

FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

POINTS = (*face.OUTER_LIPS, *face.INNER_LIPS, *face.CHIN)
"""Landmarks of the lip code, in the order of its basis."""
DIMS = 8
_INNER_WEIGHT = 2.0
_CLOSED = 0.06
"""Share of the frames whose lips are taken to be closed: at every p, b and m, and in pauses."""
_ENOUGH = 5
_SPREAD_FLOOR = 0.05
"""Components that move less than this share of the first one are noise and are not blown up."""


@dataclass(frozen=True)
class LipCode:
    """Principal components of the un-posed landmarks.

    Attributes:
        codes: float32 [T, L]; mean 0 and spread at most 1 over the training frames.
        mean: Of the un-posed landmarks, float32 [P, 2] millimetres in the head frame.
        basis: float32 [L, P, 2]; landmarks = mean + codes @ basis.
    """

    codes: FloatArray
    mean: FloatArray
    basis: FloatArray


def unpose(points: FloatArray, poses: FloatArray, mesh: FloatArray, focal: float) -> FloatArray:
    """Landmarks in the head frame, each on its own plane of constant depth there.

    Args:
        points: [T, P, 2] pixels from the principal point.
        poses: [T, 4, 4].
        mesh: Mean places of the landmarks in the head frame, [P, 3] metres; only their depth is used.
        focal: In pixels.

    Returns:
        float32 [T, P, 2] millimetres.
    """
    out = np.empty(points.shape, np.float32)
    for index, pose in enumerate(poses.astype(np.float64)):
        eye = to_head(np.zeros((1, 3), np.float32), pose.astype(np.float32))[0].astype(np.float64)
        rays = np.concatenate([points[index] / focal, np.ones((len(points[index]), 1))], 1) @ pose[:3, :3]
        met = eye + rays * ((mesh[:, 2] - eye[2]) / rays[:, 2])[:, None]
        out[index] = met[:, :2] * 1000
    return out


def lip_code(unposed: FloatArray, training: npt.NDArray[np.int64]) -> LipCode:
    """Fits the code to the training frames.

    Args:
        unposed: Landmarks `POINTS` of all frames, [T, P, 2] millimetres.
        training: Frames to fit.
    """
    weight = np.ones(len(POINTS))
    weight[len(face.OUTER_LIPS) : len(face.OUTER_LIPS) + len(face.INNER_LIPS)] = _INNER_WEIGHT
    mean = unposed[training].mean(0)
    moved = ((unposed - mean) * weight[:, None]).reshape(len(unposed), -1).astype(np.float64)
    _, singular, axes = np.linalg.svd(moved[training], full_matrices=False)
    axes = axes[:DIMS] * np.sign(axes[:DIMS].sum(1, keepdims=True))
    spread = singular[:DIMS] / np.sqrt(len(training))
    spread = np.maximum(spread, _SPREAD_FLOOR * spread[0])
    codes = moved @ axes.T / spread
    basis = (axes * spread[:, None]).reshape(-1, len(POINTS), 2) / weight[:, None]
    return LipCode(codes.astype(np.float32), mean.astype(np.float32), basis.astype(np.float32))


def gap_and_width(points: FloatArray) -> Doubles:
    """Opening and width of the mouth as shares of the face's height, [T, 2]."""
    flat = points[..., :2].astype(np.float64)

    def far(a: int, b: int) -> Doubles:
        distance: Doubles = np.linalg.norm(flat[:, a] - flat[:, b], axis=1)
        return distance

    height = far(face.FOREHEAD, face.CHIN_TIP)
    return np.stack(
        [
            far(face.UPPER_LIP, face.LOWER_LIP) / height,
            far(face.RIGHT_CORNER, face.LEFT_CORNER) / height,
        ],
        1,
    )


def closed_code(codes: FloatArray, gap: Doubles, silent: Mask) -> FloatArray:
    """Lip code of the mouth at rest: of silent frames whose lips are closed, else of all that are.

    Args:
        codes: Lip codes, float32 [T, L].
        gap: How far the lips are apart, [T].
        silent: Frames without speech, bool [T]; people breathe and smile in pauses, so not all are closed.
    """
    closed: Mask = gap <= np.quantile(gap, _CLOSED)
    resting = closed & silent
    chosen = resting if resting.sum() >= _ENOUGH else closed
    return np.median(codes[chosen], axis=0).astype(np.float32)
