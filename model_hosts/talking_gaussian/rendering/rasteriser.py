"""Draws Gaussians over a plate: the interface, and the implementation for processors."""

from __future__ import annotations

from typing import Protocol

import llvmlite.binding
import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.bundle import Camera, FloatArray
from model_hosts.talking_gaussian.images import RgbImage
from model_hosts.talking_gaussian.model.deformation import Splats
from model_hosts.talking_gaussian.rendering.binning import group_by_tile, pair_with_tiles, sort_by_depth
from model_hosts.talking_gaussian.rendering.blending import (
    TILE_WIDTH,
    blend_rgb,
    blend_yuv,
    state_floats,
    tile_height,
)
from model_hosts.talking_gaussian.rendering.projection import RECORD, project
from model_hosts.talking_gaussian.rendering.vectors import BLOCK_WIDTH, BLOCKS, Lanes

YuvImage = npt.NDArray[np.uint8]
"""uint8 [height * 3 / 2, width]: luma rows, then Cb, then Cr, each plane contiguous (FFmpeg's yuv420p)."""


class Rasteriser(Protocol):
    """Draws frames of one avatar. Not for two threads at once; each thread has its own."""

    def draw_yuv(self, splats: Splats) -> YuvImage:
        """The frame as YUV 4:2:0, BT.601, limited range. The array may be reused by the next call."""
        ...

    def draw_rgb(self, splats: Splats) -> FloatArray:
        """The frame as float32 [height, width, 3] RGB, not clipped. The array is the caller's."""
        ...


def native_lanes() -> Lanes:
    """The vector width of this processor: 16 floats with AVX-512, else 8 (which narrower units split)."""
    features = llvmlite.binding.get_host_cpu_features()
    wide = all(features.get(name, False) for name in ("avx512f", "avx512dq", "avx512vl"))
    return (0,) * (16 if wide else 8)


class CpuRasteriser:
    """The rasteriser for processors: 3D Gaussian splatting with vector instructions, one thread.

    The steps: project; sort by depth; list for each tile the Gaussians whose ellipse touches it; blend tiles
    of 64 blocks of pixels, a block being one vector, and write finished blocks straight as YUV.

    Args:
        camera: Of the avatar.
        plate: Background, uint8 [height, width, 3].
        lanes: Vector width, for tests; by default that of the processor.
    """

    def __init__(self, camera: Camera, plate: RgbImage, lanes: Lanes | None = None) -> None:
        self._lanes = native_lanes() if lanes is None else lanes
        self._height, self._width = plate.shape[:2]
        high = tile_height(self._lanes)
        across, down = -(-self._width // TILE_WIDTH), -(-self._height // high)
        self._tile = np.array([TILE_WIDTH, high])
        self._grid = np.array([across, down])
        self._size = np.array([self._width, self._height])
        self._camera = np.array([camera.focal, camera.cx, camera.cy], np.float32)
        self._plate = _plate_in_blocks(plate, self._lanes, across, down)
        self._state = aligned((state_floats(self._lanes),))
        self._bits = np.empty(BLOCKS, np.uint64)
        self._counts = np.empty(across * down, np.int32)
        self._offsets = np.empty(across * down + 1, np.int32)
        self._luma = np.empty((down * high, across * TILE_WIDTH), np.uint8)
        self._cb, self._cr = (
            np.empty((self._luma.shape[0] // 2, self._luma.shape[1] // 2), np.uint8) for _ in range(2)
        )
        self._yuv = np.empty((self._height * 3 // 2, self._width), np.uint8)
        self._reserve(0)
        self._reserve_pairs(4096)

    def _reserve(self, count: int) -> None:
        self._records = aligned((count, RECORD))
        self._depth = np.empty(count, np.float32)
        self._boxes = np.empty(count, np.int32)
        self._keys = np.empty((2, count), np.uint32)
        self._order = np.empty((2, count), np.uint32)

    def _reserve_pairs(self, count: int) -> None:
        self._pairs = np.empty((count, 2), np.int32)
        self._listed = np.empty(count, np.int32)

    def _bin(self, splats: Splats) -> None:
        count = splats.planes.shape[1]
        if count != self._depth.size:
            self._reserve(count)
        for segment in splats.segments:
            project(
                splats.planes,
                segment.view,
                self._camera,
                self._tile,
                self._size,
                segment.start,
                segment.stop,
                self._records,
                self._depth,
                self._boxes,
            )
        visible = sort_by_depth(self._depth, self._keys, self._order)
        while True:
            pairs = pair_with_tiles(
                self._records,
                self._boxes,
                self._order[0],
                visible,
                self._tile,
                self._grid,
                self._counts,
                self._pairs,
            )
            if pairs >= 0:
                break
            self._reserve_pairs(2 * len(self._pairs))
        group_by_tile(self._counts, self._pairs, pairs, self._offsets, self._listed)

    def draw_yuv(self, splats: Splats) -> YuvImage:
        """See `Rasteriser`."""
        self._bin(splats)
        blend_yuv(
            self._lanes,
            self._grid,
            self._offsets,
            self._listed,
            self._records,
            self._plate,
            self._state,
            self._bits,
            self._luma,
            self._cb,
            self._cr,
        )
        height, width = self._height, self._width
        self._yuv[:height] = self._luma[:height, :width]
        chroma = self._yuv[height:].reshape(2, height // 2, width // 2)
        chroma[0] = self._cb[: height // 2, : width // 2]
        chroma[1] = self._cr[: height // 2, : width // 2]
        return self._yuv

    def draw_rgb(self, splats: Splats) -> FloatArray:
        """See `Rasteriser`."""
        self._bin(splats)
        image = np.empty((3, *self._luma.shape), np.float32)
        blend_rgb(
            self._lanes,
            self._grid,
            self._offsets,
            self._listed,
            self._records,
            self._plate,
            self._state,
            self._bits,
            image,
        )
        return np.ascontiguousarray(image[:, : self._height, : self._width].transpose(1, 2, 0))


def aligned(shape: tuple[int, ...]) -> FloatArray:
    """Uninitialised float32 at a multiple of 64 bytes, as aligned vector loads need."""
    size = 4 * int(np.prod(shape))
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.float32).reshape(shape)


def _plate_in_blocks(plate: RgbImage, lanes: Lanes, across: int, down: int) -> FloatArray:
    """The plate as float32 [tiles, 64, 3, lanes] in 0..1, in the order in which blocks are finished."""
    height, width = plate.shape[:2]
    tall, wide = down * tile_height(lanes), across * TILE_WIDTH
    padded = np.pad(plate, ((0, tall - height), (0, wide - width), (0, 0)), "edge")
    high = len(lanes) // BLOCK_WIDTH
    blocks = padded.reshape(down, 8, high, across, 8, BLOCK_WIDTH, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    out = aligned((across * down, BLOCKS, 3, len(lanes)))
    out[:] = blocks.reshape(out.shape) / np.float32(255)
    return out
