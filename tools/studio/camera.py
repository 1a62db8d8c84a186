"""The camera and the rigid motions of head, neck and body.

The dataset uses OpenCV's convention: x_cam = R X + t with x right, y down, z away from the camera, in metres;
X is in the canonical head frame (x right in the image, y up, z to the viewer), its origin between the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.studio.mesh import Array

METRES = 0.1
"""One unit of the mesh (a decimetre) in metres."""
NECK_SHARE = 0.45
"""The part of the head's rotation that the neck takes."""


def translation(offset: Array | tuple[float, float, float]) -> Array:
    """A 4x4 translation."""
    m = np.eye(4)
    m[:3, 3] = offset
    return m


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """A 4x4 rotation from degrees: yaw > 0 turns to the viewer's right, pitch > 0 looks down."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    m = np.eye(4)
    m[:3, :3] = about_y @ about_x @ about_z
    return m


def rotation_about(turn: Array, centre: Array) -> Array:
    """A rotation around a point instead of the origin."""
    return translation(centre) @ turn @ translation(-np.asarray(centre))


@dataclass(frozen=True)
class Camera:
    """A fixed pinhole camera that looks along -z.

    Attributes:
        size: width and height of the picture in pixels.
        target: the point in the middle of the picture, decimetres.
        distance: from the camera to the target's plane, decimetres.
        half: half the width of the picture at that plane, decimetres.
    """

    size: int = 512
    target: tuple[float, float, float] = (0.0, 6.60, 0.6)
    distance: float = 14.0
    half: float = 1.66
    near: float = 4.0
    far: float = 40.0

    @property
    def position(self) -> Array:
        """Where the camera stands."""
        return np.add(self.target, (0, 0, self.distance))

    @property
    def focal(self) -> float:
        """Focal length in pixels; the principal point is the middle of the picture."""
        return self.size / 2 * self.focal_ndc

    @property
    def focal_ndc(self) -> float:
        """Focal length in normalised device coordinates."""
        return self.distance / self.half

    @property
    def projection(self) -> Array:
        """OpenGL projection matrix."""
        f, n, z = self.focal_ndc, self.near, self.far
        return np.array(
            [[f, 0, 0, 0], [0, f, 0, 0], [0, 0, (z + n) / (n - z), 2 * z * n / (n - z)], [0, 0, -1, 0.0]]
        )

    @property
    def view(self) -> Array:
        """World to OpenGL camera."""
        return translation(-self.position)

    def opencv(self, head: Array, origin: Array) -> Array:
        """V [4, 4] in metres: canonical head frame to OpenCV camera.

        Args:
            head: [4, 4] world motion of the head bone.
            origin: [3] rest position of the canonical frame's origin, decimetres.
        """
        m = np.diag([1.0, -1.0, -1.0, 1.0]) @ self.view @ head @ translation(origin)
        m[:3, 3] *= METRES
        return m

    def depth_metres(self, window: Array) -> Array:
        """Camera z in metres from window-space depth; 0 where nothing was drawn."""
        n, f = self.near, self.far
        distance = 2 * f * n / (f + n - (2 * window - 1) * (f - n))
        return np.where(window >= 1, 0, distance * METRES).astype(np.float32)

    def pixels(self, points: Array) -> Array:
        """Pixel positions [n, 2] (x right, y down) of world points [n, 3] in decimetres."""
        q = np.c_[points, np.ones(len(points))] @ (self.projection @ self.view).T
        q = q[:, :2] / q[:, 3:]
        return np.stack([q[:, 0] * 0.5 + 0.5, 0.5 - q[:, 1] * 0.5], -1) * self.size


@dataclass(frozen=True)
class Skeleton:
    """Centres of rotation of neck and head, decimetres."""

    neck: Array
    head: Array

    def bones(self, pose: Array, breath: float) -> Array:
        """World motions [3, 4, 4] of head, neck and body.

        Args:
            pose: yaw, pitch, roll of the head in degrees; the neck takes its share.
            breath: -1 to 1.
        """
        pose = np.asarray(pose, float)
        body = translation((0, 0.012 * breath, 0.006 * breath))
        neck = body @ rotation_about(rotation(*(pose * NECK_SHARE)), self.neck)
        head = neck @ rotation_about(rotation(*(pose * (1 - NECK_SHARE))), self.head)
        return np.stack([head, neck, body])
