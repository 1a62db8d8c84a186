"""Poses of a rigid body and its points from where the points are seen, by weighted least squares.

All functions work on T views of N points: `seen` [T, N, 2] in pixels from the principal point and `weight`
[T, N].
Pixels that disagree count less (Huber). Rotations R and translations t are those of views x_camera = R x + t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

_CHUNK = 200
_TINY = 1e-9


@dataclass(frozen=True)
class Views:
    """T poses of the body: rotation [T, 3, 3] and translation [T, 3] in metres."""

    rotation: Doubles
    translation: Doubles

    def __len__(self) -> int:
        return len(self.rotation)

    def __getitem__(self, index: slice | npt.NDArray[np.int64]) -> Views:
        return Views(self.rotation[index], self.translation[index])

    def camera(self, points: Doubles) -> Doubles:
        """Points [N, 3] in the frames of the cameras, [T, N, 3]."""
        moved: Doubles = points @ self.rotation.transpose(0, 2, 1) + self.translation[:, None]
        return moved

    def matrices(self) -> npt.NDArray[np.float32]:
        """As 4x4 views, float32 [T, 4, 4]."""
        out = np.tile(np.eye(4, dtype=np.float32), (len(self), 1, 1))
        out[:, :3, :3], out[:, :3, 3] = self.rotation, self.translation
        return out


@dataclass(frozen=True)
class Prior:
    """What the points are pulled to.

    Attributes:
        points: [N, 3] metres.
        strength: Squared pixels a view for a squared centimetre.
    """

    points: Doubles
    strength: float


def project(views: Views, points: Doubles, focal: float) -> Doubles:
    """Where points [N, 3] are seen, [T, N, 2] pixels from the principal point."""
    camera = views.camera(points)
    seen: Doubles = focal * camera[..., :2] / camera[..., 2:]
    return seen


def find_poses(
    seen: Doubles, weight: Doubles, points: Doubles, views: Views, focal: float, huber: float, steps: int
) -> Views:
    """Each view's pose for known points, by Gauss-Newton from `views`."""
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(views), _CHUNK)]
    found = [
        _find_poses(seen[chunk], weight[chunk], points, views[chunk], focal, huber, steps) for chunk in chunks
    ]
    return Views(
        np.concatenate([part.rotation for part in found]),
        np.concatenate([part.translation for part in found]),
    )


def find_points(
    seen: Doubles, weight: Doubles, points: Doubles, views: Views, focal: float, huber: float, prior: Prior
) -> Doubles:
    """One Gauss-Newton step of the points for known poses."""
    camera = views.camera(points)
    error = seen - focal * camera[..., :2] / camera[..., 2:]
    share = _huber(error, weight, huber)
    # The rows of the Jacobian of both pixel coordinates, [T, N, 2, 3].
    jacobian = np.stack(_rows(camera, focal), 2) @ views.rotation[:, None]
    scaled = jacobian * share[..., None, None]
    pull = prior.strength * 1e4 * len(views)
    normal = np.einsum("tnai,tnaj->nij", scaled, jacobian) + pull * np.eye(3)
    right = np.einsum("tnai,tna->ni", scaled, error) + pull * (prior.points - points)
    moved: Doubles = points + np.linalg.solve(normal, right[..., None])[..., 0]
    return moved


def adjust(
    seen: Doubles,
    weight: Doubles,
    points: Doubles,
    views: Views,
    focal: float,
    *,
    prior: Prior,
    huber: float,
    steps: int,
) -> tuple[Doubles, Views]:
    """Poses and points in turn; the points keep the place, size and turn of the prior as a whole."""
    for _ in range(steps):
        views = find_poses(seen, weight, points, views, focal, huber, 2)
        points = find_points(seen, weight, points, views, focal, huber, prior)
        points, views = _fixed(points, views, prior.points)
    return points, find_poses(seen, weight, points, views, focal, huber, 2)


def spread_views(vectors: Doubles, count: int, first: int) -> npt.NDArray[np.int64]:
    """Picks views that differ most from each other, beginning with `first`.

    Args:
        vectors: What they differ in, [T, D], scaled.
        count: How many at most.
        first: A view to begin with.
    """
    chosen = [first]
    nearest = np.linalg.norm(vectors - vectors[first], axis=1)
    while len(chosen) < min(count, len(vectors)) and nearest.max() > 0:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(vectors - vectors[chosen[-1]], axis=1))
    return np.array(sorted(chosen))


def angles(rotation: Doubles) -> Doubles:
    """Yaw, pitch and roll of views in degrees, [T, 3]; 0 faces the camera."""
    turned = np.diag([1.0, -1.0, -1.0]) @ rotation
    yaw = np.arctan2(turned[:, 0, 2], turned[:, 2, 2])
    pitch = np.arcsin(np.clip(-turned[:, 1, 2], -1, 1))
    roll = np.arctan2(turned[:, 1, 0], turned[:, 1, 1])
    found: Doubles = np.degrees(np.stack([yaw, pitch, roll], 1))
    return found


def jitter(values: Doubles) -> Doubles:
    """Noise of a slow signal [T, D]: the spread of its second difference, scaled to that of white noise."""
    spread: Doubles = np.std(values[2:] - 2 * values[1:-1] + values[:-2], axis=0) / np.sqrt(6)
    return spread


def exponential(vectors: Doubles) -> Doubles:
    """Rotations [..., 3, 3] of rotation vectors [..., 3] (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None] + 1e-12
    cross = np.zeros((*vectors.shape[:-1], 3, 3))
    x, y, z = np.moveaxis(vectors, -1, 0)
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -z, y, -x
    cross[..., 1, 0], cross[..., 2, 0], cross[..., 2, 1] = z, -y, x
    turned: Doubles = (
        np.eye(3) + np.sin(angle) / angle * cross + (1 - np.cos(angle)) / angle**2 * (cross @ cross)
    )
    return turned


def _find_poses(
    seen: Doubles, weight: Doubles, points: Doubles, views: Views, focal: float, huber: float, steps: int
) -> Views:
    count = len(views)
    for _ in range(steps):
        camera = views.camera(points)
        error = seen - focal * camera[..., :2] / camera[..., 2:]
        share = _huber(error, weight, huber).reshape(count, -1, 1)
        arm = camera - views.translation[:, None]
        rows = _rows(camera, focal)
        # d(row . (w x arm)) / dw = arm x row
        jacobian = np.concatenate([np.concatenate([np.cross(arm, row), row], -1)[:, None] for row in rows], 1)
        stacked = (jacobian * share[:, None]).reshape(count, -1, 6).transpose(0, 2, 1)
        jacobian = jacobian.reshape(count, -1, 6)
        normal = stacked @ jacobian + _TINY * np.eye(6)
        right = stacked @ error.transpose(0, 2, 1).reshape(count, -1, 1)
        step = np.linalg.solve(normal, right)[..., 0]
        views = Views(exponential(step[:, :3]) @ views.rotation, views.translation + step[:, 3:])
    return views


def _rows(camera: Doubles, focal: float) -> tuple[Doubles, Doubles]:
    """Derivatives of both pixel coordinates by the camera-frame point, each [T, N, 3]."""
    scale = focal / camera[..., 2]
    zero = np.zeros_like(scale)
    across = np.stack([scale, zero, -scale * camera[..., 0] / camera[..., 2]], -1)
    down = np.stack([zero, scale, -scale * camera[..., 1] / camera[..., 2]], -1)
    return across, down


def _huber(error: Doubles, weight: Doubles, huber: float) -> Doubles:
    share: Doubles = weight * np.minimum(1, huber / (np.linalg.norm(error, axis=-1) + _TINY))
    return share


def _fixed(points: Doubles, views: Views, prior: Doubles) -> tuple[Doubles, Views]:
    """The same solution with the points moved onto the prior by a similarity.

    Pictures do not show where the origin of the body is, how it is turned and how large it is.
    """
    middle, wanted = points.mean(0), prior.mean(0)
    left, singular, right = np.linalg.svd((points - middle).T @ (prior - wanted))
    sign = np.sign(np.linalg.det(left @ right))
    turn = (left @ np.diag([1, 1, sign]) @ right).T
    scale = singular.sum() / ((points - middle) ** 2).sum()
    rotation = views.rotation @ turn.T
    translation = scale * (views.translation + views.rotation @ middle) - rotation @ wanted
    return scale * (points - middle) @ turn.T + wanted, Views(rotation, translation)
