"""Depth sort, and the list of Gaussians that each tile of the image has to draw."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import float32, int32, int64, njit, uint32

from model_hosts.talking_gaussian.bundle import FloatArray

_BITS = 11
_BUCKETS = 1 << _BITS
_LOW = np.uint32(_BUCKETS - 1)
_FINEST = np.float32(_BUCKETS * _BUCKETS - 1)


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def sort_by_depth(depth: FloatArray, keys: npt.NDArray[np.uint32], order: npt.NDArray[np.uint32]) -> int:
    """Orders what is visible from near to far: two stable passes of radix sort on 22-bit depths.

    Args:
        depth: [N] metres; what is not positive is left out.
        keys: [2, N] work space.
        order: [2, N]; the result is in the first row.

    Returns:
        How many are visible.
    """
    nearest = float32(1e30)
    farthest = float32(0)
    for i in range(depth.size):
        farthest = max(farthest, depth[i])
        nearest = min(nearest, depth[i] if depth[i] > 0 else float32(1e30))
    scale = _FINEST / max(farthest - nearest, float32(1e-20))
    low = np.zeros(_BUCKETS, np.uint32)
    high = np.zeros(_BUCKETS, np.uint32)
    n = 0
    for i in range(depth.size):
        if depth[i] > 0:
            key = uint32((depth[i] - nearest) * scale)
            keys[0, n] = key
            order[0, n] = uint32(i)
            low[key & _LOW] += uint32(1)
            high[key >> uint32(_BITS)] += uint32(1)
            n += 1
    below_low = uint32(0)
    below_high = uint32(0)
    for bucket in range(_BUCKETS):
        count = low[bucket]
        low[bucket] = below_low
        below_low += count
        count = high[bucket]
        high[bucket] = below_high
        below_high += count
    for i in range(n):
        key = keys[0, i]
        place = low[key & _LOW]
        low[key & _LOW] = place + uint32(1)
        keys[1, place] = key
        order[1, place] = order[0, i]
    for i in range(n):
        bucket = keys[1, i] >> uint32(_BITS)
        place = high[bucket]
        high[bucket] = place + uint32(1)
        order[0, place] = order[1, i]
    return n


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def pair_with_tiles(
    records: FloatArray,
    boxes: npt.NDArray[np.int32],
    order: npt.NDArray[np.uint32],
    visible: int,
    tile: npt.NDArray[np.int64],
    grid: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int32],
    pairs: npt.NDArray[np.int32],
) -> int:
    """Lists (tile, Gaussian) pairs in depth order, leaving out the tiles that the ellipse does not touch.

    Args:
        records: [N, RECORD] of `project`.
        boxes: [N] tile boxes of `project`.
        order: [N] of `sort_by_depth`.
        visible: How many of `order` count.
        tile: [2] width and height of a tile in pixels.
        grid: [2] tiles across and down.
        counts: [tiles], filled with the number of pairs of each tile.
        pairs: [capacity, 2], filled.

    Returns:
        The number of pairs, or -1 when `pairs` is too small.
    """
    across = int32(grid[0])
    tile_width = float32(tile[0])
    tile_height = float32(tile[1])
    per_tile = float32(1) / tile_width
    zero = float32(0)
    counts[:] = 0
    m = 0
    for rank in range(visible):
        i = int64(order[rank])
        box = boxes[i]
        x0, x1 = box & 255, (box >> 8) & 255
        y0, y1 = (box >> 16) & 255, (box >> 24) & 255
        if m + (x1 - x0 + 1) * (y1 - y0 + 1) > pairs.shape[0]:
            return -1
        x, y = records[i, 0], records[i, 1]
        half_height, shear = records[i, 10], records[i, 11]
        flatness, rightmost = records[i, 12], records[i, 13]
        narrow = x0 == x1 or y0 == y1
        for row in range(y0, y1 + 1):
            first, last = x0, x1
            if not narrow:
                # The ellipse's extent over the rows of the tile, at the heights where it is widest.
                above = max(row * tile_height - y, -half_height)
                below = min(row * tile_height + (tile_height - float32(1)) - y, half_height)
                v = min(below, max(above, rightmost))
                w = min(below, max(above, -rightmost))
                squared = half_height * half_height
                right = x + shear * v + math.sqrt(max(zero, (squared - v * v) * flatness))
                left = x + shear * w - math.sqrt(max(zero, (squared - w * w) * flatness))
                first = max(x0, int32((left + float32(0.99999)) * per_tile))
                last = min(x1, int32(right * per_tile)) if right >= zero else int32(-1)
            for column in range(first, last + 1):
                number = row * across + column
                counts[number] += 1
                pairs[m, 0] = number
                pairs[m, 1] = i
                m += 1
    return m


@njit(nogil=True, cache=True)
def group_by_tile(
    counts: npt.NDArray[np.int32],
    pairs: npt.NDArray[np.int32],
    length: int,
    offsets: npt.NDArray[np.int32],
    listed: npt.NDArray[np.int32],
) -> None:
    """Stable scatter of the pairs: tile t owns `listed[offsets[t]:offsets[t + 1]]`, near to far.

    Args:
        counts: [tiles] of `pair_with_tiles`; overwritten.
        pairs: [capacity, 2] of `pair_with_tiles`.
        length: How many pairs count.
        offsets: [tiles + 1], filled.
        listed: [capacity], filled.
    """
    total = 0
    for number in range(counts.size):
        offsets[number] = total
        count = counts[number]
        counts[number] = total
        total += count
    offsets[counts.size] = total
    for k in range(length):
        number = pairs[k, 0]
        listed[counts[number]] = pairs[k, 1]
        counts[number] += 1
