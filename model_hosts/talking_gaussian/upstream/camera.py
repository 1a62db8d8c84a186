"""Head poses in the original's terms.

We store OpenCV views V (x_camera = R x_head + t; camera x right, y down, z away). The original's
`transforms_*.json` hold camera-to-head matrices with OpenGL's camera axes (y up, z to the viewer), its
`track_params.pt` Euler angles and translations of the head in those axes, ten times as long.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
TRACK_SCALE = 10.0
"""Units of a tracked translation in a metre."""


def to_transforms(views: npt.ArrayLike) -> Doubles:
    """Views [..., 4, 4] as the json's `transform_matrix` [..., 4, 4]."""
    return np.asarray(np.linalg.inv(np.asarray(views, np.float64)) @ _FLIP)


def from_transforms(matrices: npt.ArrayLike) -> Doubles:
    """The inverse of `to_transforms`.

    Raises:
        ValueError: A matrix is no rigid motion.
    """
    matrices = np.asarray(matrices, np.float64)
    turns = matrices[..., :3, :3]
    if not np.isfinite(matrices).all() or not np.allclose(
        turns @ turns.swapaxes(-1, -2), np.eye(3), atol=1e-3
    ):
        raise ValueError("a transform_matrix is no rigid motion")
    return np.asarray(_FLIP @ np.linalg.inv(matrices))


def to_track(views: npt.ArrayLike) -> tuple[Doubles, Doubles]:
    """Views [T, 4, 4] as Euler angles [T, 3] in radians and translations [T, 3] of `track_params.pt`.

    The angles (theta, phi, psi) mean R = X(theta) Y(phi) Z(psi), with the sign convention of `from_track`.
    """
    moved = _FLIP @ np.asarray(views, np.float64)
    turn = moved[:, :3, :3]
    phi = np.arcsin(np.clip(-turn[:, 0, 2], -1, 1))
    theta = np.arctan2(turn[:, 1, 2], turn[:, 2, 2])
    psi = np.arctan2(turn[:, 0, 1], turn[:, 0, 0])
    return np.stack([theta, phi, psi], 1), moved[:, :3, 3] * TRACK_SCALE


def from_track(angles: npt.ArrayLike, shifts: npt.ArrayLike) -> Doubles:
    """The inverse of `to_track`: views [T, 4, 4]."""
    theta, phi, psi = np.asarray(angles, np.float64).T
    turn = _about(theta, 1, 2) @ _about(phi, 2, 0) @ _about(psi, 0, 1)
    views = np.tile(np.eye(4), (len(theta), 1, 1))
    views[:, :3, :3], views[:, :3, 3] = turn, np.asarray(shifts, np.float64) / TRACK_SCALE
    return _FLIP @ views


def _about(angle: Doubles, first: int, second: int) -> Doubles:
    """Rotations [T, 3, 3] in the plane of two axes; positive angles turn the second towards the first."""
    turn = np.tile(np.eye(3), (len(angle), 1, 1))
    turn[:, first, first] = turn[:, second, second] = np.cos(angle)
    turn[:, first, second], turn[:, second, first] = np.sin(angle), -np.sin(angle)
    return turn
