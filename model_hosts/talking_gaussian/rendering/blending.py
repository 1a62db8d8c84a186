"""Blends each tile's Gaussians front to back over the plate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import float32, int64, njit, uint64

from model_hosts.talking_gaussian.bundle import FloatArray
from model_hosts.talking_gaussian.rendering.projection import RECORD
from model_hosts.talking_gaussian.rendering.vectors import (
    BLOCK_WIDTH,
    BLOCKS,
    Lanes,
    blend_block,
    finish_block,
    lowest_bit,
    touched_blocks,
)

TILE_WIDTH = 8 * BLOCK_WIDTH
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_ONE = np.uint64(1)


def tile_height(lanes: Lanes) -> int:
    """Height of a tile in pixels: eight blocks."""
    return 8 * len(lanes) // BLOCK_WIDTH


def state_floats(lanes: Lanes) -> int:
    """Floats of the work space of one thread: the state of 64 blocks, then a batch of 64 records."""
    return BLOCKS * 4 * len(lanes) + BLOCKS * RECORD


@njit(nogil=True, cache=True)
def transpose(bits: npt.NDArray[np.uint64]) -> None:
    """Transposes a 64x64 bit matrix in place (Warren, Hacker's Delight, 7-3)."""
    width = uint64(32)
    mask = uint64(0x00000000FFFFFFFF)
    while width != uint64(0):
        k = uint64(0)
        while k < uint64(64):
            swap = ((bits[k] >> width) ^ bits[k | width]) & mask
            bits[k] ^= swap << width
            bits[k | width] ^= swap
            k = ((k | width) + uint64(1)) & ~width
        width = width >> uint64(1)
        mask = mask ^ (mask << width)


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def _blend_tile(
    lanes: Lanes,
    left: float,
    top: float,
    listed: npt.NDArray[np.int32],
    records: FloatArray,
    state: FloatArray,
    bits: npt.NDArray[np.uint64],
) -> None:
    """Blends the listed Gaussians into the state of a tile's 64 blocks."""
    width = len(lanes)
    block_floats = 4 * width
    batch_at = BLOCKS * block_floats
    states = state.ctypes.data
    batch = states + 4 * batch_at
    for block in range(BLOCKS):
        for i in range(width):
            state[block * block_floats + i] = float32(1)
        for i in range(width, block_floats):
            state[block * block_floats + i] = float32(0)
    alive = _ALL
    start = 0
    while start < listed.size and alive != uint64(0):
        n = min(64, listed.size - start)
        for j in range(n):
            i = int64(listed[start + j])
            x = records[i, 0] - left
            y = records[i, 1] - top
            at = batch_at + j * RECORD
            state[at] = x
            state[at + 1] = y
            for field in range(2, 9):
                state[at + field] = records[i, field]
            bits[j] = touched_blocks(  # type: ignore[call-arg] # the typing context is numba's
                lanes, x, y, records[i, 10], records[i, 13], records[i, 11], records[i, 12]
            )
        for j in range(n, 64):
            bits[j] = uint64(0)
        transpose(bits)
        walk = alive
        while walk != uint64(0):
            block = lowest_bit(walk)  # type: ignore[call-arg]
            walk &= walk - _ONE
            hits = bits[block]
            if hits != uint64(0):
                number = int(block)
                x = float32((number & 7) * BLOCK_WIDTH)
                y = float32((number >> 3) * (width // BLOCK_WIDTH))
                if not blend_block(lanes, states + number * (4 * block_floats), batch, hits, x, y):
                    alive &= ~(_ONE << block)
        start += 64


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def blend_yuv(
    lanes: Lanes,
    grid: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int32],
    listed: npt.NDArray[np.int32],
    records: FloatArray,
    plate: FloatArray,
    state: FloatArray,
    bits: npt.NDArray[np.uint64],
    luma: npt.NDArray[np.uint8],
    cb: npt.NDArray[np.uint8],
    cr: npt.NDArray[np.uint8],
) -> None:
    """Draws all tiles as YUV 4:2:0.

    Args:
        lanes: Vector width.
        grid: [2] tiles across and down.
        offsets: [tiles + 1] of `group_by_tile`.
        listed: Of `group_by_tile`.
        records: [N, RECORD] of `project`.
        plate: [tiles, 64, 3, lanes] background, 64-byte aligned (see `Plate`).
        state: Work space of `state_floats`, 64-byte aligned.
        bits: [64] work space.
        luma: [tiles high, tiles wide] in whole tiles, filled.
        cb: Half of that each way, filled.
        cr: Like `cb`.
    """
    width = len(lanes)
    high = width // BLOCK_WIDTH
    stride = int(luma.shape[1])
    for number in range(offsets.size - 1):
        left = (number % grid[0]) * TILE_WIDTH
        top = (number // grid[0]) * (8 * high)
        own = listed[offsets[number] : offsets[number + 1]]
        _blend_tile(lanes, float32(left), float32(top), own, records, state, bits)
        for block in range(BLOCKS):
            x = left + (block & 7) * BLOCK_WIDTH
            y = top + (block >> 3) * high
            chroma = (y >> 1) * (stride >> 1) + (x >> 1)
            finish_block(  # type: ignore[call-arg]
                lanes,
                state.ctypes.data + block * (16 * width),
                plate.ctypes.data + (number * BLOCKS + block) * (12 * width),
                luma.ctypes.data + y * stride + x,
                cb.ctypes.data + chroma,
                cr.ctypes.data + chroma,
                stride,
            )


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def blend_rgb(
    lanes: Lanes,
    grid: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int32],
    listed: npt.NDArray[np.int32],
    records: FloatArray,
    plate: FloatArray,
    state: FloatArray,
    bits: npt.NDArray[np.uint64],
    image: FloatArray,
) -> None:
    """Draws all tiles as RGB: like `blend_yuv`, but into `image` [3, height, width] in whole tiles."""
    width = len(lanes)
    high = width // BLOCK_WIDTH
    for number in range(offsets.size - 1):
        left = (number % grid[0]) * TILE_WIDTH
        top = (number // grid[0]) * (8 * high)
        own = listed[offsets[number] : offsets[number + 1]]
        _blend_tile(lanes, float32(left), float32(top), own, records, state, bits)
        for block in range(BLOCKS):
            x = left + (block & 7) * BLOCK_WIDTH
            y = top + (block >> 3) * high
            at = block * 4 * width
            for channel in range(3):
                for i in range(width):
                    image[channel, y + (i >> 2), x + (i & 3)] = (
                        state[at + width * (channel + 1) + i]
                        + state[at + i] * plate[number, block, channel, i]
                    )
