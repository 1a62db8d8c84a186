"""Head poses as the networks and the drivers see them.

A pose V is the OpenCV view of the head: x_camera = R x_head + t, in metres, [4, 4].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

FloatArray = npt.NDArray[np.float32]

_LEAST_TURN = 0.005
_LEAST_SHIFT = 0.0005


@dataclass(frozen=True)
class PoseStatistics:
    """Middle and spread of the poses of a recording.

    Attributes:
        mean: The mean pose, float32 [4, 4].
        std: Spread of the six numbers of `vectors`, float32 [6].
        coupling: float32 [3, 3]; the translation that goes with a rotation vector in this recording, because
            heads turn about the neck: shift = coupling @ rotation.
    """

    mean: FloatArray
    std: FloatArray
    coupling: FloatArray

    def vectors(self, poses: FloatArray) -> FloatArray:
        """Poses [T, 4, 4] as [T, 6]: rotation vector of R R_mean^T (radians), then t - t_mean (metres)."""
        turned = poses[:, :3, :3].astype(np.float64) @ self.mean[:3, :3].astype(np.float64).T
        rotation = Rotation.from_matrix(turned).as_rotvec()
        shift = poses[:, :3, 3] - self.mean[:3, 3]
        return np.concatenate([rotation, shift], 1).astype(np.float32)


def pose_statistics(poses: FloatArray) -> PoseStatistics:
    """Statistics of poses, float32 [T, 4, 4]."""
    mean = np.eye(4, dtype=np.float32)
    mean[:3, :3] = Rotation.from_matrix(poses[:, :3, :3].astype(np.float64)).mean().as_matrix()
    mean[:3, 3] = np.median(poses[:, :3, 3], axis=0)
    rough = PoseStatistics(mean, np.ones(6, np.float32), np.zeros((3, 3), np.float32))
    vectors = rough.vectors(poses).astype(np.float64)
    floor = np.array([_LEAST_TURN] * 3 + [_LEAST_SHIFT] * 3)
    std = np.maximum(vectors.std(0), floor).astype(np.float32)
    turn, shift = vectors[:, :3], vectors[:, 3:]
    normal = turn.T @ turn + 1e-4 * len(poses) * _LEAST_TURN * np.eye(3)
    coupling = np.linalg.solve(normal, turn.T @ shift).T.astype(np.float32)
    return PoseStatistics(mean, std, coupling)


def recentre(poses: FloatArray, centre: FloatArray) -> FloatArray:
    """The same poses for a head frame whose origin is moved to `centre` (float32 [3], old head frame)."""
    moved = poses.copy()
    moved[:, :3, 3] = poses[:, :3, 3] + poses[:, :3, :3] @ centre
    return moved


def unproject(pixels: FloatArray, depth: FloatArray, focal: float, centre: tuple[float, float]) -> FloatArray:
    """Camera-frame points [n, 3] in metres of pixel positions [n, 2] (pixel centres at .5) at depth [n]."""
    rays = np.concatenate([(pixels - np.asarray(centre)) / focal, np.ones((len(pixels), 1))], 1)
    return (rays * depth[:, None]).astype(np.float32)


def to_head(points: FloatArray, pose: FloatArray) -> FloatArray:
    """Camera-frame points [n, 3] in the head frame of a pose [4, 4]."""
    return ((points - pose[:3, 3]) @ pose[:3, :3]).astype(np.float32)
