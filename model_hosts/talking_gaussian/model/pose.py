"""Head poses: the 6-vector of the bundle format and view matrices."""

from __future__ import annotations

import numpy as np

from model_hosts.talking_gaussian.bundle import FloatArray


def rotation(vector: FloatArray) -> FloatArray:
    """The 3x3 matrix of a rotation vector [3] in radians (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = (float(value) for value in vector)
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    # Below this angle the series and the exact quotients agree to float64 precision.
    sine, cosine = (
        (1.0, 0.5) if angle < 1e-8 else (np.sin(angle) / angle, (1 - np.cos(angle)) / (angle * angle))
    )
    return np.asarray(np.eye(3) + sine * skew + cosine * (skew @ skew), np.float32)


def view_of_pose(mean: FloatArray, pose: FloatArray) -> FloatArray:
    """The view [3, 4] of a pose vector [6] about the mean view [4, 4]; x_camera = R x + t."""
    view = np.empty((3, 4), np.float32)
    view[:, :3] = rotation(pose[:3]) @ mean[:3, :3]
    view[:, 3] = mean[:3, 3] + pose[3:]
    return view
