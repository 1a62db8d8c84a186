"""Follows points of one picture through others: where a small patch went, to hundredths of a pixel.

Inverse-compositional alignment (Baker and Matthews, 2004) of square patches, first coarse, then fine. The
picture is read through an affine map that already turns and scales it like the first one, so only a small
shift is left to find, and a change of brightness and contrast is taken out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.ndimage import gaussian_filter

Floats = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

_COARSE = (2.2, 14, 2)
_FINE = (0.7, 8, 1)
"""Smoothing in pixels, half side of the patch and distance of its samples in pixels."""
_STEPS = 8
_CONVERGED = 0.004


@dataclass(frozen=True)
class Patches:
    """Patches around the points of the first picture.

    Attributes:
        points: Middles, float32 [N, 2], x and y of pixel centres at .5.
        levels: For each level: smoothing, sample offsets [S, 2], values [N, S], gradients [N, S, 2] and
            inverse Hessians [N, 2, 2].
    """

    points: Floats
    levels: tuple[tuple[float, Floats, Floats, Floats, Floats], ...]


def cut_patches(picture: Floats, points: Floats, scale: float = 1.0) -> Patches:
    """Prepares patches.

    Args:
        picture: Grey, float32 [h, w].
        points: Their middles, float32 [N, 2].
        scale: Size of the patches; 1 is for a picture of 512 pixels.
    """
    levels = []
    for smoothing, half, step in (_COARSE, _FINE):
        soft = gaussian_filter(picture, smoothing * scale)
        reach = np.arange(-half, half + 1, step, dtype=np.float32) * scale
        offsets = np.stack(np.meshgrid(reach, reach), -1).reshape(-1, 2).astype(np.float32)
        slope = np.stack(np.gradient(soft)[::-1], -1).astype(np.float32)
        places = points[:, None] + offsets
        values = _sample(soft[..., None], places)[..., 0]
        slopes = _sample(slope, places)
        values -= values.mean(1, keepdims=True)
        slopes = slopes - slopes.mean(1, keepdims=True)
        hessian = np.einsum("nsi,nsj->nij", slopes, slopes) + 1e-3 * np.eye(2)
        levels.append((smoothing * scale, offsets, values, slopes, np.linalg.inv(hessian).astype(np.float32)))
    return Patches(points.astype(np.float32), tuple(levels))


def texture(picture: Floats, points: Floats, scale: float = 1.0) -> Floats:
    """How well each point can be followed in its worst direction, float32 [N]."""
    levels = cut_patches(picture, points, scale).levels
    return (1 / np.linalg.eigvalsh(levels[-1][4])[:, 1]).astype(np.float32)


def follow(patches: Patches, picture: Floats, affine: npt.NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Finds the patches in another picture.

    Args:
        patches: Of the first picture.
        picture: Grey, float32 [h, w].
        affine: [2, 3], from pixels of the first picture to about where they are now.

    Returns:
        The points in this picture, float32 [N, 2], and how well the patches agree, float32 [N]: correlation.
    """
    shift = np.zeros_like(patches.points)
    agreement = np.zeros(len(shift), np.float32)
    matrix = affine.astype(np.float32)
    for smoothing, offsets, values, slopes, inverse in patches.levels:
        soft = gaussian_filter(picture, smoothing)
        _align(soft, patches.points, offsets, values, slopes, inverse, matrix, shift, agreement)
    moved = (patches.points + shift) @ matrix[:, :2].T + matrix[:, 2]
    return moved.astype(np.float32), agreement


def grey(picture: ByteArray) -> Floats:
    """Luma of RGB, float32 [h, w]."""
    luma: Floats = picture.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return luma


def _sample(picture: Floats, places: Floats) -> Floats:
    """Bilinear values of a picture [h, w, c] at places [..., 2]; the border goes on."""
    height, width = picture.shape[:2]
    x = np.clip(places[..., 0] - 0.5, 0, width - 1.001)
    y = np.clip(places[..., 1] - 0.5, 0, height - 1.001)
    column, row = x.astype(np.int64), y.astype(np.int64)
    u, v = (x - column)[..., None], (y - row)[..., None]
    upper = picture[row, column] * (1 - u) + picture[row, column + 1] * u
    lower = picture[row + 1, column] * (1 - u) + picture[row + 1, column + 1] * u
    value: Floats = (upper * (1 - v) + lower * v).astype(np.float32)
    return value


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def _align(
    picture: Floats,
    points: Floats,
    offsets: Floats,
    values: Floats,
    slopes: Floats,
    inverse: Floats,
    matrix: Floats,
    shift: Floats,
    agreement: Floats,
) -> None:
    height, width = picture.shape
    samples = len(offsets)
    read = np.empty(samples, np.float32)
    for n in range(len(points)):
        energy = np.float32(0)
        for s in range(samples):
            energy += values[n, s] * values[n, s]
        for _ in range(_STEPS):
            mean = np.float32(0)
            for s in range(samples):
                px = points[n, 0] + offsets[s, 0] + shift[n, 0]
                py = points[n, 1] + offsets[s, 1] + shift[n, 1]
                x = matrix[0, 0] * px + matrix[0, 1] * py + matrix[0, 2] - np.float32(0.5)
                y = matrix[1, 0] * px + matrix[1, 1] * py + matrix[1, 2] - np.float32(0.5)
                x = min(max(x, np.float32(0)), np.float32(width - 1.001))
                y = min(max(y, np.float32(0)), np.float32(height - 1.001))
                column, row = int(x), int(y)
                u, v = x - np.float32(column), y - np.float32(row)
                upper = picture[row, column] + u * (picture[row, column + 1] - picture[row, column])
                lower = picture[row + 1, column] + u * (
                    picture[row + 1, column + 1] - picture[row + 1, column]
                )
                read[s] = upper + v * (lower - upper)
                mean += read[s]
            mean /= np.float32(samples)
            here, both = np.float32(1e-6), np.float32(0)
            for s in range(samples):
                read[s] -= mean
                here += read[s] * read[s]
                both += read[s] * values[n, s]
            gain = np.sqrt(energy / here)
            agreement[n] = both / np.sqrt(energy * here + np.float32(1e-6))
            across, down = np.float32(0), np.float32(0)
            for s in range(samples):
                error = gain * read[s] - values[n, s]
                across += slopes[n, s, 0] * error
                down += slopes[n, s, 1] * error
            step_x = inverse[n, 0, 0] * across + inverse[n, 0, 1] * down
            step_y = inverse[n, 1, 0] * across + inverse[n, 1, 1] * down
            shift[n, 0] -= step_x
            shift[n, 1] -= step_y
            if step_x * step_x + step_y * step_y < np.float32(_CONVERGED * _CONVERGED):
                break
