"""Draws tiles, and goes back through them: a tile is 64 blocks of pixels, as in `rendering.blending`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import float32, int64, njit, uint64

from model_hosts.talking_gaussian.bundle import FloatArray
from model_hosts.talking_gaussian.rendering.blending import TILE_WIDTH, transpose
from model_hosts.talking_gaussian.rendering.projection import RECORD
from model_hosts.talking_gaussian.rendering.vectors import (
    BLOCK_WIDTH,
    BLOCKS,
    Lanes,
    lowest_bit,
    touched_blocks,
)
from model_hosts.talking_gaussian.training.raster_vectors import (
    BACKWARD_VECTORS,
    CHANNELS,
    FORWARD_VECTORS,
    MOMENTS,
    add_up,
    draw_block,
    undraw_block,
)

_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_ONE = np.uint64(1)
_EXTRA = RECORD - 2
"""Where a record holds the fourth and fifth channel."""
KEPT = 2
"""Vectors that a block leaves for the way back: its transmittance and its last index."""


def drawing_floats(lanes: Lanes) -> int:
    """Floats of the work space of `draw_tiles`: the state of 64 blocks, then a batch of 64 records."""
    return BLOCKS * (FORWARD_VECTORS * len(lanes) + RECORD)


def undrawing_floats(lanes: Lanes) -> int:
    """Floats of the work space of `undraw_tiles`: blocks, the batch's records, then the batch's sums."""
    return BLOCKS * (BACKWARD_VECTORS * len(lanes) + RECORD + MOMENTS * len(lanes))


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def _load(record: FloatArray, x: float, y: float, state: FloatArray, at: int) -> None:
    """Puts a record into the batch, relative to the tile."""
    state[at] = x
    state[at + 1] = y
    for field in range(2, 9):
        state[at + field] = record[field]
    state[at + 9] = record[_EXTRA]
    state[at + 10] = record[_EXTRA + 1]


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def _leave(lanes: Lanes, left: int, top: int, state: FloatArray, kept: FloatArray, image: FloatArray) -> None:
    """Writes a drawn tile: [64, KEPT, lanes] for the way back, and its pixels where they are in the image."""
    width = len(lanes)
    high = width // BLOCK_WIDTH
    block_floats = FORWARD_VECTORS * width
    for block in range(BLOCKS):
        at = block * block_floats
        for k in range(KEPT):
            for i in range(width):
                kept[block, k, i] = state[at + k * width + i]
        x0, y0 = left + (block & 7) * BLOCK_WIDTH, top + (block >> 3) * high
        rows, columns = min(high, image.shape[1] - y0), min(BLOCK_WIDTH, image.shape[2] - x0)
        for k in range(CHANNELS):
            for row in range(rows):
                for column in range(columns):
                    i = at + (KEPT + k) * width + row * BLOCK_WIDTH + column
                    image[k, y0 + row, x0 + column] = state[i]
        for row in range(rows):
            for column in range(columns):
                image[CHANNELS, y0 + row, x0 + column] = float32(1) - state[at + row * BLOCK_WIDTH + column]


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def _arrive(
    lanes: Lanes, left: int, top: int, kept: FloatArray, gradient: FloatArray, state: FloatArray
) -> None:
    """Sets the blocks of a tile up for the way back; beyond the image gradients are 0."""
    width = len(lanes)
    high = width // BLOCK_WIDTH
    block_floats = BACKWARD_VECTORS * width
    for block in range(BLOCKS):
        at = block * block_floats
        for k in range(KEPT):
            for i in range(width):
                state[at + k * width + i] = kept[block, k, i]
        for i in range(KEPT * width, block_floats):
            state[at + i] = float32(0)
        x0, y0 = left + (block & 7) * BLOCK_WIDTH, top + (block >> 3) * high
        rows, columns = min(high, gradient.shape[1] - y0), min(BLOCK_WIDTH, gradient.shape[2] - x0)
        for k in range(CHANNELS + 1):
            for row in range(rows):
                for column in range(columns):
                    i = at + (KEPT + 1 + k) * width + row * BLOCK_WIDTH + column
                    state[i] = gradient[k, y0 + row, x0 + column]


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def draw_tiles(
    lanes: Lanes,
    grid: npt.NDArray[np.int64],
    first: int,
    stop: int,
    offsets: npt.NDArray[np.int32],
    listed: npt.NDArray[np.int32],
    records: FloatArray,
    state: FloatArray,
    bits: npt.NDArray[np.uint64],
    batches: npt.NDArray[np.int64],
    masks: npt.NDArray[np.uint64],
    used: npt.NDArray[np.int32],
    kept: FloatArray,
    image: FloatArray,
) -> None:
    """Draws the tiles from `first` to `stop` over nothing.

    Args:
        lanes: Vector width.
        grid: [2] tiles across and down.
        first: The first tile.
        stop: One past the last.
        offsets: [tiles + 1] of `group_by_tile`.
        listed: Of `group_by_tile`.
        records: [N, RECORD] of `project`, with the fourth and fifth channel in the last two places.
        state: Work space of `drawing_floats`, 64-byte aligned.
        bits: [64] work space.
        batches: [tiles + 1] first batch of each tile; a batch is 64 listed Gaussians.
        masks: [batches, 64], filled: the entries of a batch that each block drew.
        used: [tiles], filled: batches until the tile was opaque.
        kept: [tiles, 64, KEPT, lanes], filled for the way back; 64-byte aligned.
        image: [CHANNELS + 1, H, W], filled; the coverage is last.
    """
    width = len(lanes)
    high = width // BLOCK_WIDTH
    block_floats = FORWARD_VECTORS * width
    batch_at = BLOCKS * block_floats
    states = state.ctypes.data
    batch = states + 4 * batch_at
    for number in range(first, stop):
        left = (number % grid[0]) * TILE_WIDTH
        top = (number // grid[0]) * (8 * high)
        for block in range(BLOCKS):
            for i in range(block_floats):
                state[block * block_floats + i] = float32(1) if i < width else float32(0)
        alive = _ALL
        count = offsets[number + 1] - offsets[number]
        own = listed[offsets[number] : offsets[number + 1]]
        done = 0
        while done * 64 < count and alive != uint64(0):
            start = done * 64
            n = min(64, count - start)
            for j in range(n):
                record = records[int64(own[start + j])]
                x = record[0] - float32(left)
                y = record[1] - float32(top)
                _load(record, x, y, state, batch_at + j * RECORD)
                bits[j] = touched_blocks(  # type: ignore[call-arg] # the typing context is numba's
                    lanes, x, y, record[10], record[13], record[11], record[12]
                )
            for j in range(n, 64):
                bits[j] = uint64(0)
            transpose(bits)
            mask = masks[batches[number] + done]
            for block in range(BLOCKS):
                mask[block] = uint64(0)
            walk = alive
            while walk != uint64(0):
                block = lowest_bit(walk)  # type: ignore[call-arg]
                walk &= walk - _ONE
                hits = bits[block]
                if hits != uint64(0):
                    at = int(block)
                    x = float32((at & 7) * BLOCK_WIDTH)
                    y = float32((at >> 3) * high)
                    rest = draw_block(
                        lanes, states + at * (4 * block_floats), batch, hits, x, y, float32(start)
                    )
                    mask[at] = hits & ~rest
                    if rest != uint64(0):
                        alive &= ~(_ONE << block)
            done += 1
        used[number] = done
        _leave(lanes, left, top, state, kept[number], image)


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def undraw_tiles(
    lanes: Lanes,
    grid: npt.NDArray[np.int64],
    first: int,
    stop: int,
    offsets: npt.NDArray[np.int32],
    listed: npt.NDArray[np.int32],
    records: FloatArray,
    state: FloatArray,
    batches: npt.NDArray[np.int64],
    masks: npt.NDArray[np.uint64],
    used: npt.NDArray[np.int32],
    kept: FloatArray,
    gradient: FloatArray,
    moments: FloatArray,
) -> None:
    """The way back through `draw_tiles`.

    Args:
        lanes: Vector width.
        grid: As in `draw_tiles`.
        first: The first tile.
        stop: One past the last.
        offsets: As in `draw_tiles`.
        listed: As in `draw_tiles`.
        records: As in `draw_tiles`.
        state: Work space of `undrawing_floats`, 64-byte aligned; its sums are zero before and after.
        batches: As in `draw_tiles`.
        masks: Of `draw_tiles`.
        used: Of `draw_tiles`.
        kept: Of `draw_tiles`.
        gradient: [CHANNELS + 1, H, W] of the image.
        moments: [N, RECORD]; the `MOMENTS` of each Gaussian are added.
    """
    width = len(lanes)
    high = width // BLOCK_WIDTH
    block_floats = BACKWARD_VECTORS * width
    batch_at = BLOCKS * block_floats
    states = state.ctypes.data
    batch = states + 4 * batch_at
    sums = batch + 4 * BLOCKS * RECORD
    out = moments.ctypes.data
    for number in range(first, stop):
        if used[number] == 0:
            continue
        left = (number % grid[0]) * TILE_WIDTH
        top = (number // grid[0]) * (8 * high)
        own = listed[offsets[number] : offsets[number + 1]]
        _arrive(lanes, left, top, kept[number], gradient, state)
        for done in range(used[number] - 1, -1, -1):
            start = done * 64
            n = min(64, own.size - start)
            for j in range(n):
                record = records[int64(own[start + j])]
                x, y = record[0] - float32(left), record[1] - float32(top)
                _load(record, x, y, state, batch_at + j * RECORD)
            mask = masks[batches[number] + done]
            touched = uint64(0)
            for block in range(BLOCKS):
                hits = mask[block]
                if hits != uint64(0):
                    touched |= hits
                    x = float32((block & 7) * BLOCK_WIDTH)
                    y = float32((block >> 3) * high)
                    undraw_block(  # type: ignore[call-arg]
                        lanes, states + block * (4 * block_floats), batch, sums, hits, x, y, float32(start)
                    )
            while touched != uint64(0):
                j = int(lowest_bit(touched))  # type: ignore[call-arg]
                touched &= touched - _ONE
                i = int64(own[start + j])
                add_up(lanes, sums + j * (4 * MOMENTS * width), out + i * (4 * RECORD))
