"""The pose of the head in every frame: first from landmarks, then refined by following the skin itself.

Landmarks tremble by a tenth of a degree. Patches of skin and hair, followed from the key frame into every
other one, do not: the pose that explains them best is about three times steadier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.ndimage import binary_dilation, binary_erosion

from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.bundle_adjustment import (
    Doubles,
    Prior,
    Views,
    adjust,
    angles,
    find_points,
    find_poses,
    project,
    spread_views,
)
from model_hosts.talking_gaussian.preprocess.flow import cut_patches, follow, grey, texture

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

FOCAL = 1200 / 512
"""Focal length in picture widths. Pictures of a head do not show it; this is a usual portrait lens."""
_OWN_FOCAL = 417.8 / 512
"""What the landmarker's pose is for, in picture heights."""
_VIEWS = 80
"""Views that the shape of the head is found from; all others only find their pose."""
_POINTS = 450
_LEAST_POINTS = 20
_SPACING = 6
_AGREEMENT = 0.75


@dataclass(frozen=True)
class Head:
    """Poses of the head and the shape of the face.

    Attributes:
        views: Its pose in every frame, head frame in metres to OpenCV camera.
        mesh: The 468 landmarks in the head frame, the mean over the clip, [468, 3] metres.
    """

    views: Views
    mesh: Doubles


def head_from_landmarks(points: FloatArray, poses: FloatArray, size: int) -> Head:
    """Bundle adjustment of the landmarks that the face does not move.

    Args:
        points: Landmarks, float32 [T, 478, 3] pixels.
        poses: The landmarker's, float32 [T, 4, 4], OpenGL and centimetres.
        size: Side of the pictures.
    """
    focal = FOCAL * size
    views = _from_landmarker(poses)
    seen = points[:, : face.MESH, :2].astype(np.float64) - size / 2
    mesh = _rough_mesh(points[:, : face.MESH].astype(np.float64), views, size)
    rigid = face.rigid()
    ones = np.ones(seen.shape[:2])
    chosen = spread_views(_pose_numbers(views), _VIEWS, 0)
    prior = Prior(mesh[rigid], 0.02)
    found, _ = adjust(
        seen[chosen][:, rigid], ones[chosen][:, rigid], mesh[rigid], views[chosen], focal,
        prior=prior, huber=1.5, steps=15,
    )  # fmt: skip
    views = find_poses(seen[:, rigid], ones[:, rigid], found, views, focal, 1.5, 8)
    mesh = _mesh(points, views, mesh, chosen, size)
    mesh[rigid] = found
    return Head(views, mesh)


def nearest_to_middle(views: Views, penalty: FloatArray) -> int:
    """The frame whose pose is nearest to the median pose, with a penalty for each frame."""
    numbers = _pose_numbers(views)
    return int(np.argmin(np.abs(numbers - np.median(numbers, 0)).sum(1) + penalty))


def refine(
    head: Head,
    frames: Callable[[], Iterable[ByteArray]],
    points: FloatArray,
    person: Mask,
    key: int,
    progress: Callable[[float], None],
) -> Head:
    """Refines poses by following patches of the key frame's head.

    Args:
        head: From the landmarks.
        frames: Gives the pictures again, uint8 [size, size, 3].
        points: Landmarks, float32 [T, 478, 3].
        person: Where the person is in the key frame.
        key: The key frame.
        progress: Called with the share that is done.
    """
    size = len(person)
    focal, scale, count = FOCAL * size, size / 512, len(points)
    picture = next(image for index, image in enumerate(frames()) if index == key)
    first = grey(picture)
    places = _followable(first, points[key], person, scale)
    if len(places) < _LEAST_POINTS:
        return head
    patches = cut_patches(first, places, scale)
    rigid = face.rigid()
    rest = points[:, rigid, :2].astype(np.float64)
    seen = np.zeros((count, len(places), 2))
    weight = np.zeros((count, len(places)))
    for index, image in enumerate(frames()):
        affine = _affine(rest[key], rest[index])
        seen[index], agreement = follow(patches, grey(image), affine)
        weight[index] = np.maximum(0, (agreement - _AGREEMENT) / (1 - _AGREEMENT)) ** 2
        inside = (seen[index] > 2 * scale).all(1) & (seen[index] < size - 2 * scale).all(1)
        weight[index] *= inside
        progress((index + 1) / count)
    seen -= size / 2
    views = head.views
    start = _lift(places, head, key, size)
    chosen = spread_views(_pose_numbers(views), _VIEWS, key)
    prior = Prior(start, 0.01)
    shape = start
    for _ in range(4):
        shape = find_points(seen[chosen], weight[chosen], shape, views[chosen], focal, 1.5, prior)
    for _ in range(2):
        shape, some = adjust(
            seen[chosen], weight[chosen], shape, views[chosen], focal, prior=prior, huber=1.0, steps=12
        )
        # Hair and brows that do not keep their place in the head count less.
        error = np.linalg.norm(seen[chosen] - project(some, shape, focal), axis=-1)
        loose = np.sqrt((weight[chosen] * error**2).sum(0) / (weight[chosen].sum(0) + 1e-9))
        weight = weight / (0.15 * scale + loose) ** 2
        weight /= weight.mean()
        views = find_poses(seen, weight, shape, views, focal, 1.0, 8)
    views = _same_frame(views, head.views)
    poor = (weight > 0).sum(1) < _LEAST_POINTS
    rotation, translation = views.rotation.copy(), views.translation.copy()
    rotation[poor], translation[poor] = head.views.rotation[poor], head.views.translation[poor]
    views = Views(rotation, translation)
    return Head(views, _mesh(points, views, head.mesh, chosen, size))


def _mesh(
    points: FloatArray, views: Views, mesh: Doubles, chosen: npt.NDArray[np.int64], size: int
) -> Doubles:
    """The landmarks' mean places in the head frame for known poses."""
    seen = points[chosen, : face.MESH, :2].astype(np.float64) - size / 2
    prior, ones = Prior(mesh, 0.02), np.ones(seen.shape[:2])
    for _ in range(4):
        mesh = find_points(seen, ones, mesh, views[chosen], FOCAL * size, 3.0, prior)
    return mesh


def _same_frame(views: Views, wanted: Views) -> Views:
    """The same motion in the head frame of other views of it.

    What followed points say about the head is free up to a turn and a shift of its frame.
    """
    back = views.rotation.transpose(0, 2, 1)
    left, _, right = np.linalg.svd((back @ wanted.rotation).mean(0))
    turn = left @ right
    shift = np.median(np.einsum("tij,tj->ti", back, wanted.translation - views.translation), axis=0)
    return Views(views.rotation @ turn, views.translation + views.rotation @ shift)


def _from_landmarker(poses: FloatArray) -> Views:
    """OpenCV views of the landmarker's poses, for our focal length."""
    flip = np.diag([1.0, -1.0, -1.0])
    rotation = flip @ poses[:, :3, :3].astype(np.float64)
    # Its rotation carries a scale of nearly 1.
    left, _, right = np.linalg.svd(rotation)
    translation = poses[:, :3, 3].astype(np.float64) @ flip / 100
    translation[:, 2] *= FOCAL / _OWN_FOCAL
    return Views(left @ right, translation)


def _rough_mesh(points: Doubles, views: Views, size: int) -> Doubles:
    """Landmarks turned back into the head frame with a parallel projection, the median over the clip."""
    metres = points / (FOCAL * size) * views.translation[:, 2][:, None, None]
    metres -= metres[:, face.rigid()].mean(1, keepdims=True)
    mesh: Doubles = np.median(metres @ views.rotation, axis=0) - _origin(points, views, size)
    return mesh


def _origin(points: Doubles, views: Views, size: int) -> Doubles:
    """Where the head frame's origin is relative to the middle of the rigid landmarks, [3] metres."""
    focal = FOCAL * size
    middle = points[:, face.rigid(), :2].mean(1) - size / 2
    seen = focal * views.translation[:, :2] / views.translation[:, 2:]
    away = (seen - middle) / focal * views.translation[:, 2:]
    offset = np.concatenate([away, np.zeros((len(away), 1))], 1)
    turned: Doubles = np.median(np.einsum("tij,ti->tj", views.rotation, offset), axis=0)
    return turned


def _pose_numbers(views: Views) -> Doubles:
    """Angles and translations, [T, 6], each in units of its spread."""
    numbers = np.concatenate([angles(views.rotation), views.translation * 100], 1)
    scaled: Doubles = (numbers - numbers.mean(0)) / np.maximum(numbers.std(0), 0.1)
    return scaled


def _affine(start: Doubles, end: Doubles) -> Doubles:
    """The affine map [2, 3] that takes points `start` [N, 2] nearest to `end`."""
    solved = np.linalg.lstsq(np.c_[start, np.ones(len(start))], end, rcond=None)[0]
    return np.asarray(solved.T)


def _followable(first: FloatArray, points: FloatArray, person: Mask, scale: float) -> FloatArray:
    """Points of forehead, nose, cheeks, ears and hair that can be followed best, float32 [N, 2]."""
    size = person.shape
    rows = np.arange(size[0])[:, None]
    region = binary_erosion(person, iterations=max(1, round(7 * scale)))
    region &= (rows < points[face.NOSE_BASE, 1] - 4 * scale) & (rows < points[face.RIGHT_EAR, 1] + 60 * scale)
    for eye in (face.RIGHT_EYE_AND_BROW, face.LEFT_EYE_AND_BROW):
        around = face.fill(face.hull(points[list(eye), :2]), size)
        region &= ~binary_dilation(around, iterations=max(1, round(5 * scale)))
    step = _SPACING * scale
    grid = np.stack(np.meshgrid(np.arange(step, size[1], step), np.arange(step, size[0], step)), -1)
    places = grid.reshape(-1, 2).astype(np.float32)
    places = places[region[places[:, 1].astype(int), places[:, 0].astype(int)]]
    best = np.argsort(-texture(first, places, scale))[:_POINTS]
    chosen: FloatArray = places[np.sort(best)]
    return chosen


def _lift(places: FloatArray, head: Head, key: int, size: int) -> Doubles:
    """Points of the key frame on the surface of the mesh, in the head frame."""
    view = head.views[key : key + 1]
    camera = view.camera(head.mesh)[0]
    seen = project(view, head.mesh, FOCAL * size)[0] + size / 2
    depth = LinearNDInterpolator(seen, camera[:, 2])(places)
    outside = np.isnan(depth)
    # Ears and hair lie behind the outline of the face.
    depth[outside] = NearestNDInterpolator(seen, camera[:, 2])(places[outside]) + 0.015
    rays = np.concatenate([(places - size / 2) / (FOCAL * size), np.ones((len(places), 1))], 1)
    lifted: Doubles = (rays * depth[:, None] - view.translation) @ view.rotation[0]
    return lifted
