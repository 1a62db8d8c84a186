"""A clip in smaller pictures: what a processor can train, and a quick look on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from model_hosts.talking_gaussian.preprocess.dataset import (
    ByteArray,
    FloatArray,
    IntArray,
    TrainingSet,
    corners,
)


def resized(data: TrainingSet, width: int) -> TrainingSet:
    """The clip in pictures of a width; unchanged if they are no wider, or if the width is 0.

    Frames and plate become means over areas; labels and depth keep their values, those of the nearest pixels.
    What is measured in pixels follows: focal length, boxes and torso track.

    Args:
        data: A clip.
        width: Pixels.
    """
    if width == 0 or width >= data.size[1]:
        return data
    factor = width / data.size[1]
    shrink = np.array([factor, factor, 1, 1], np.float32)
    size = 2 * round(data.size[0] * factor / 2), width
    down, across = _areas(data.size[0], size[0]), _areas(data.size[1], size[1])
    frames = np.empty((data.count, *size, 3), np.uint8)
    for index, frame in enumerate(data.frames):
        frames[index] = _shrunk(frame, down, across)
    rows, columns = _nearest(data.size[0], size[0]), _nearest(data.size[1], size[1])
    small = replace(
        data,
        frames=frames,
        labels=np.ascontiguousarray(data.labels[:, rows[:, None], columns]),
        plate=_shrunk(data.plate, down, across),
        depth=data.depth[rows[:, None], columns],
        focal=data.focal * factor,
        track=data.track * shrink,
        idle=None if data.idle is None else replace(data.idle, track=data.idle.track * shrink),
    )
    scale = np.array([factor, size[0] / data.size[0]], np.float32)

    def moved(corner: IntArray, box: tuple[int, int], new: tuple[int, int]) -> IntArray:
        middle = corner + np.asarray(box) / 2
        return corners((middle * scale).astype(np.float32), new, size)

    return replace(
        small,
        lip_corner=moved(data.lip_corner, data.lip_box, small.lip_box),
        eye_corners=moved(data.eye_corners, data.eye_box, small.eye_box),
    )


def _areas(before: int, after: int) -> Any:
    """Sparse matrix [after, before] of the share that each old pixel has in each new one."""
    edges = np.arange(after + 1) * before / after
    old = np.arange(before)
    overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return csr_array((np.maximum(overlap, 0) * after / before).astype(np.float32))


def _nearest(before: int, after: int) -> IntArray:
    """Index of the old pixel in the middle of each new one."""
    return ((np.arange(after) + 0.5) * before / after).astype(np.int64)


def _shrunk(image: ByteArray, down: Any, across: Any) -> ByteArray:
    height, width, channels = image.shape
    rows: FloatArray = down @ image.reshape(height, -1).astype(np.float32)
    turned = rows.reshape(-1, width, channels).swapaxes(0, 1)
    both: FloatArray = across @ np.ascontiguousarray(turned).reshape(width, -1)
    mean = both.reshape(-1, rows.shape[0], channels).swapaxes(0, 1)
    small: npt.NDArray[np.uint8] = np.clip(mean + 0.5, 0, 255).astype(np.uint8)
    return small
