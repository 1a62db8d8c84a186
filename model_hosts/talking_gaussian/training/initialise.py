"""Gaussians from the pixels of the key frame, so that training starts from a picture instead of a cloud."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, distance_transform_edt, gaussian_gradient_magnitude

from model_hosts.talking_gaussian.preprocess.dataset import (
    BACKGROUND,
    CLOTHES,
    HAIR,
    MOUTH,
    NECK,
    SKIN,
    TrainingSet,
)
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.preprocess.poses import to_head, unproject
from model_hosts.talking_gaussian.training.settings import Settings

FloatArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_OVERLAP = 40 / 512
"""How far the neck continues up behind the chin, in image widths: a raised head must not show a gap."""
_RIM = 6 / 512
_RIM_SHARE = 0.08
_MOUTH_FRAMES = 24
_BEHIND_LIPS = (0.006, 0.016)
_HOLLOW = 0.2
"""Half axes of the inside of a mouth that no frame shows, as shares of the lip box; lips cover it at rest."""
_HOLLOW_RGB = (0.22, 0.09, 0.09)
_BOX_BOOST = 3.5
_RIGID = 0.985
"""Share of hanging hair that must meet the person for it to count as turning with the head."""


@dataclass(frozen=True)
class Start:
    """Initial Gaussians of a branch: centres [N, 3], colours [N, 3], sizes [N] in metres."""

    xyz: FloatArray
    rgb: FloatArray
    size: FloatArray

    @staticmethod
    def join(parts: list[Start]) -> Start:
        """Several as one."""
        return Start(
            np.concatenate([part.xyz for part in parts]).astype(np.float32),
            np.concatenate([part.rgb for part in parts]).astype(np.float32),
            np.concatenate([part.size for part in parts]).astype(np.float32),
        )


def initial_gaussians(data: TrainingSet, settings: Settings) -> dict[str, Start]:
    """Samples the three branches: face and mouth in the head frame, torso in the camera frame."""
    rng = np.random.default_rng(settings.seed)
    detail = _detail(data)
    return {
        "face": _face(data, settings.face.count, detail, rng),
        "mouth": _mouth(data, settings.mouth.count, rng),
        "torso": _torso(data, settings.torso.count, detail, rng),
    }


def hanging_row(data: TrainingSet) -> int:
    """Row of the key frame below which hair hangs: the middle of the lips."""
    return int(data.lip_corner[data.key, 1]) + data.lip_box[1] // 2


def torso_hair(data: TrainingSet) -> Mask:
    """Hair of the key frame that hangs below the mouth and does not turn with the head.

    It follows neither head nor shoulders rigidly, so the torso branch, which knows the head pose, owns it.
    """
    hair: Mask = data.labels[data.key] == HAIR
    hair[: hanging_row(data)] = False
    if hair.any() and _turns_with_head(hair, data) > _RIGID:
        hair[:] = False
    return hair


def _turns_with_head(mask: Mask, data: TrainingSet) -> float:
    """Share of the mask's points that, moved rigidly, stay on the person in the frames turned furthest."""
    points = to_head(_lifted(mask, data), data.poses[data.key])
    turns = data.pose_statistics.vectors(data.poses[data.training])
    extremes = [index for axis in (0, 1, 2) for index in (turns[:, axis].argmin(), turns[:, axis].argmax())]
    met = []
    for index in data.training[extremes]:
        pose = data.poses[index]
        camera = points @ pose[:3, :3].T + pose[:3, 3]
        column, row = (camera[:, :2] / camera[:, 2:] * data.focal + data.centre).astype(np.int64).T
        seen = (column >= 0) & (row >= 0) & (column < data.size[1]) & (row < data.size[0])
        met.append(
            float((data.labels[index][row[seen], column[seen]] != BACKGROUND).mean()) if seen.any() else 1.0
        )
    return float(np.mean(met))


def _lifted(mask: Mask, data: TrainingSet) -> FloatArray:
    """Camera-frame points of the masked pixels of the key frame."""
    rows, columns = np.nonzero(mask & (data.depth > 0))
    position = np.stack([columns + 0.5, rows + 0.5], 1).astype(np.float32)
    return unproject(position, data.depth[rows, columns], data.focal, data.centre)


def _detail(data: TrainingSet) -> FloatArray:
    """Sampling weight of each pixel of the key frame: more where there are edges, lips and eyes."""
    grey = data.frames[data.key].astype(np.float32).mean(2)
    weight = 1 + 0.5 * np.minimum(gaussian_gradient_magnitude(grey, 1.5) / 5, 4)
    boxes = [(data.lip_corner[data.key], data.lip_box)]
    boxes += [(corner, data.eye_box) for corner in data.eye_corners[data.key]]
    for (left, top), (width, height) in boxes:
        weight[top : top + height, left : left + width] *= _BOX_BOOST
    detail: FloatArray = weight.astype(np.float32)
    return detail


def _sample(
    mask: Mask, count: int, weight: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
    """Draws pixels: positions [n, 2], rows, columns, spacing in pixels [n]."""
    chance = (weight * mask).ravel().astype(np.float64)
    if not chance.any():
        raise DatasetInvalid("a part of the person is not to be seen in the key frame")
    chance /= chance.sum()
    repeated = count > int((chance > 0).sum())
    chosen = rng.choice(chance.size, count, replace=repeated, p=chance)
    rows, columns = np.divmod(chosen, mask.shape[1])
    position = np.stack([columns, rows], 1) + rng.uniform(0, 1, (count, 2))
    spacing = 1 / np.sqrt(chance[chosen] * count)
    return position.astype(np.float32), rows, columns, np.clip(spacing, 0.5, 12).astype(np.float32)


def _filled_depth(data: TrainingSet, mask: Mask) -> FloatArray:
    """Depth of the masked pixels, and of every other pixel that of the nearest of them."""
    known = mask & (data.depth > 0)
    if not known.any():
        raise DatasetInvalid("the key frame has no depth where the person is")
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled: FloatArray = data.depth[tuple(nearest)]
    return filled


def _face(data: TrainingSet, count: int, detail: FloatArray, rng: np.random.Generator) -> Start:
    labels, pose, image = data.labels[data.key], data.poses[data.key], data.frames[data.key]
    mask = np.isin(labels, (SKIN, HAIR, MOUTH)) & ~torso_hair(data)
    depth = _filled_depth(data, mask)
    rim = max(1, round(_RIM * data.size[1]))
    edge = mask & ~binary_erosion(mask, iterations=rim)
    rim_count = int(count * _RIM_SHARE)
    parts = []
    for region, share, weight, scale in (
        (mask, count - rim_count, detail, 0.55),
        (edge, rim_count, np.ones_like(detail), 0.8),
    ):
        position, rows, columns, spacing = _sample(region, share, weight, rng)
        z = depth[rows, columns]
        if region is edge:  # a second layer behind the outline, seen when the head turns
            z = z + rng.uniform(0.005, 0.04, share).astype(np.float32)
            spacing = np.minimum(spacing, 4)
        points = to_head(unproject(position, z, data.focal, data.centre), pose)
        parts.append(Start(points, image[rows, columns] / 255, scale * spacing * z / data.focal))
    return Start.join(parts)


def _mouth(data: TrainingSet, count: int, rng: np.random.Generator) -> Start:
    """The mouth's inside from the frames that show most of it, put behind the lips of the head frame."""
    opening = data.opening[data.training]
    widest = data.training[np.argsort(-opening)]
    # Neighbouring frames show the same mouth: take every fourth of the widest.
    chosen = [int(i) for i in widest[::4][:_MOUTH_FRAMES] if (data.labels[i] == MOUTH).any()]
    plane = _lip_plane(data)
    if not chosen:
        return _unseen_mouth(data, count, plane, rng)
    parts = []
    for index, share in zip(chosen, np.diff(np.linspace(0, count, len(chosen) + 1).astype(int)), strict=True):
        rows, columns = np.nonzero(data.labels[index] == MOUTH)
        pick = rng.integers(0, len(rows), share)
        position = np.stack([columns[pick], rows[pick]], 1) + rng.uniform(0, 1, (share, 2))
        behind = rng.uniform(*_BEHIND_LIPS, share).astype(np.float32)
        points = _on_plane(position.astype(np.float32), plane - behind, data, index)
        size = np.full(share, 1.2 * data.poses[index][2, 3] / data.focal, np.float32)
        parts.append(Start(points, data.frames[index][rows[pick], columns[pick]] / 255, size))
    return Start.join(parts)


def _unseen_mouth(data: TrainingSet, count: int, plane: float, rng: np.random.Generator) -> Start:
    """A dark hollow behind lips that never opened: better than a hole that shows the plate."""
    (left, top), (width, height) = data.lip_corner[data.key], data.lip_box
    radius, angle = np.sqrt(rng.uniform(0, 1, count)), rng.uniform(0, 2 * np.pi, count)
    middle = np.array([left + width / 2, top + height / 2])
    reach = np.stack([np.cos(angle) * width, np.sin(angle) * height], 1) * _HOLLOW * radius[:, None]
    behind = rng.uniform(*_BEHIND_LIPS, count).astype(np.float32)
    points = _on_plane((middle + reach).astype(np.float32), plane - behind, data, data.key)
    size = np.full(count, 1.2 * data.poses[data.key][2, 3] / data.focal, np.float32)
    return Start(points, np.tile(np.array(_HOLLOW_RGB, np.float32), (count, 1)), size)


def _lip_plane(data: TrainingSet) -> float:
    """The z of the lips in the head frame."""
    left, top = data.lip_corner[data.key]
    width, height = data.lip_box
    rows, columns = np.mgrid[
        top + height // 4 : top + 3 * height // 4, left + width // 4 : left + 3 * width // 4
    ]
    position = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1).astype(np.float32)
    z = data.depth[rows, columns].ravel()
    points = to_head(unproject(position[z > 0], z[z > 0], data.focal, data.centre), data.poses[data.key])
    if not len(points):
        raise DatasetInvalid("the key frame has no depth at the lips")
    return float(np.median(points[:, 2]))


def _on_plane(position: FloatArray, plane: FloatArray, data: TrainingSet, index: int) -> FloatArray:
    """Head-frame points where the rays of pixels meet z = plane of the head frame."""
    pose = data.poses[index]
    eye = -pose[:3, :3].T @ pose[:3, 3]
    rays = unproject(position, np.ones(len(position), np.float32), data.focal, data.centre) @ pose[:3, :3]
    points: FloatArray = (eye + rays * ((plane - eye[2]) / rays[:, 2])[:, None]).astype(np.float32)
    return points


def _torso(data: TrainingSet, count: int, detail: FloatArray, rng: np.random.Generator) -> Start:
    labels, image = data.labels[data.key], data.frames[data.key]
    hair = torso_hair(data)
    mask = np.isin(labels, (NECK, CLOTHES)) | hair
    depth = _filled_depth(data, mask)
    source = np.arange(data.size[0])[:, None].repeat(data.size[1], 1)
    extended = np.zeros(data.size, bool)
    reach = round(_OVERLAP * data.size[1])
    face = np.isin(labels, (SKIN, MOUTH))
    for column in np.nonzero((labels == NECK).any(0))[0]:
        top = int(np.nonzero(labels[:, column] == NECK)[0][0])
        if top > 0 and face[top - 1, column]:
            span = slice(max(0, top - reach), top)
            extended[span, column] = labels[span, column] != BACKGROUND
            source[span, column] = min(top + 3, data.size[0] - 1)
            # Never nearer than a centimetre behind the face that covers it.
            depth[span, column] = np.maximum(depth[span, column], data.depth[span, column] + 0.01)
    position, rows, columns, spacing = _sample(mask | extended, count, detail, rng)
    z = depth[rows, columns]
    rgb = image[source[rows, columns], columns] / 255
    # No frame shows the hidden part for long, so nothing else closes the holes between its Gaussians.
    scale = np.where(extended[rows, columns], 1.2, 0.6)
    size = (scale * spacing * z / data.focal).astype(np.float32)
    return Start(unproject(position, z, data.focal, data.centre), rgb.astype(np.float32), size)
