"""Drawing Gaussians differentiably on a processor: the kernels as a function that torch can differentiate.

Follows Kerbl et al., "3D Gaussian Splatting" (2023), with the constants of gsplat. Frames are drawn side by
side on several threads; a step's result does not depend on how they were scheduled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_hosts.talking_gaussian.bundle import FloatArray
from model_hosts.talking_gaussian.rendering.binning import group_by_tile, pair_with_tiles, sort_by_depth
from model_hosts.talking_gaussian.rendering.blending import TILE_WIDTH, tile_height
from model_hosts.talking_gaussian.rendering.projection import RECORD, project
from model_hosts.talking_gaussian.rendering.rasteriser import aligned, native_lanes
from model_hosts.talking_gaussian.rendering.vectors import BLOCKS, Lanes
from model_hosts.talking_gaussian.training.raster_projection import backpropagate, fill_planes
from model_hosts.talking_gaussian.training.raster_tiles import (
    KEPT,
    draw_tiles,
    drawing_floats,
    undraw_tiles,
    undrawing_floats,
)
from model_hosts.talking_gaussian.training.raster_vectors import CHANNELS
from model_hosts.talking_gaussian.training.threads import each, kernel_threads

_IDENTITY = np.eye(3, 4, dtype=np.float32)
_EXTRA = RECORD - 2


def draw(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colours: Tensor,
    focal: float,
    centre: tuple[float, float],
    size: tuple[int, int],
    lanes: Lanes | None = None,
) -> Tensor:
    """Draws B frames over nothing.

    Args:
        means: [B, N, 3] in camera space, metres; all float32 on the CPU.
        quats: [B, N, 4] wxyz.
        scales: [B, N, 3] metres.
        opacities: [B, N].
        colours: [B, N, C] with C up to 5.
        focal: Focal length, pixels.
        centre: Principal point (x, y), pixels.
        size: Height and width.
        lanes: Vector width, for tests; by default that of the processor.

    Returns:
        [B, C + 1, H, W]: colours weighted by coverage, then the coverage. NaN, and so are the gradients, if
        an input has a number that is not finite.

    Raises:
        ValueError: The tensors are of another type, on another device, or have more channels.
    """
    if colours.shape[2] > CHANNELS:
        raise ValueError(f"{colours.shape[2]} channels cannot be drawn, at most {CHANNELS}")
    view = View(focal, centre, size, native_lanes() if lanes is None else lanes)
    drawn: Tensor = _Draw.apply(means, quats, scales, opacities, colours, view)
    return drawn


@dataclass(frozen=True)
class View:
    """Camera, picture size (height, width) and vector width."""

    focal: float
    centre: tuple[float, float]
    size: tuple[int, int]
    lanes: Lanes

    @property
    def camera(self) -> FloatArray:
        """Focal length and principal point."""
        return np.array([self.focal, *self.centre], np.float32)

    @property
    def pixels(self) -> npt.NDArray[np.int64]:
        """Width and height."""
        return np.array(self.size[::-1])

    @property
    def tile(self) -> npt.NDArray[np.int64]:
        """Width and height of a tile."""
        return np.array([TILE_WIDTH, tile_height(self.lanes)])

    @property
    def grid(self) -> npt.NDArray[np.int64]:
        """Tiles across and down."""
        return -(-self.pixels // self.tile)


class _Frame:
    """One frame's projected Gaussians by tile, and what its tiles keep for the way back."""

    def __init__(self, gaussians: tuple[FloatArray, ...], view: View) -> None:
        self.view = view
        count, tiles = len(gaussians[0]), int(view.grid.prod())
        self.planes = np.empty((14, count), np.float32)
        self.records = aligned((count, RECORD))
        self.depth = np.empty(count, np.float32)
        boxes = np.empty(count, np.int32)
        means, quats, scales, opacities, colours = gaussians
        fill_planes(means, quats, scales, opacities, colours, self.planes)
        project(
            self.planes,
            _IDENTITY,
            view.camera,
            view.tile,
            view.pixels,
            0,
            count,
            self.records,
            self.depth,
            boxes,
        )
        self.records[:, _EXTRA:] = 0
        more = colours[:, 3:]
        self.records[:, _EXTRA : _EXTRA + more.shape[1]] = more
        order = np.empty((2, count), np.uint32)
        visible = sort_by_depth(self.depth, np.empty((2, count), np.uint32), order)
        counts = np.empty(tiles, np.int32)
        pairs, capacity = -1, 8 * count + 1024
        while pairs < 0:
            table = np.empty((capacity, 2), np.int32)
            pairs = pair_with_tiles(
                self.records, boxes, order[0], visible, view.tile, view.grid, counts, table
            )
            capacity *= 4
        self.offsets, self.listed = np.empty(tiles + 1, np.int32), np.empty(pairs, np.int32)
        group_by_tile(counts, table, pairs, self.offsets, self.listed)
        self.batches = np.zeros(tiles + 1, np.int64)
        np.cumsum(-(-np.diff(self.offsets) // 64), out=self.batches[1:])
        self.masks = np.empty((self.batches[-1], BLOCKS), np.uint64)
        self.used = np.empty(tiles, np.int32)
        self.kept = aligned((tiles, BLOCKS, KEPT, len(view.lanes)))

    def draw(self, image: FloatArray, first: int, stop: int) -> None:
        """Draws tiles into the image [CHANNELS + 1, H, W]."""
        draw_tiles(
            self.view.lanes,
            self.view.grid,
            first,
            stop,
            self.offsets,
            self.listed,
            self.records,
            aligned((drawing_floats(self.view.lanes),)),
            np.empty(BLOCKS, np.uint64),
            self.batches,
            self.masks,
            self.used,
            self.kept,
            image,
        )

    def undraw(self, gradient: FloatArray, first: int, stop: int) -> FloatArray:
        """Sums over the pixels of tiles, [N, RECORD], of the gradient of the image."""
        moments = aligned((len(self.depth), RECORD))
        moments[:] = 0
        state = aligned((undrawing_floats(self.view.lanes),))
        state[:] = 0
        undraw_tiles(
            self.view.lanes,
            self.view.grid,
            first,
            stop,
            self.offsets,
            self.listed,
            self.records,
            state,
            self.batches,
            self.masks,
            self.used,
            self.kept,
            gradient,
            moments,
        )
        return moments

    def backpropagate(self, moments: list[FloatArray], out: tuple[FloatArray, ...]) -> None:
        """Fills in the gradients of means, quaternions, scales, opacities and colours."""
        total = moments[0]
        for part in moments[1:]:
            total += part
        view = self.view
        means, quats, scales, opacities, colours = out
        backpropagate(
            self.planes,
            self.records,
            self.depth,
            total,
            view.camera,
            view.pixels,
            means,
            quats,
            scales,
            opacities,
            colours,
        )


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        colours: Tensor,
        view: View,
    ) -> Tensor:
        inputs = means, quats, scales, opacities, colours
        gaussians = [_array(value) for value in inputs]
        batch, channels = len(means), colours.shape[2]
        ctx.view, ctx.shapes = view, [value.shape for value in gaussians]
        # The kernels would put what is not a number anywhere in memory; so that is what comes out.
        ctx.finite = all(bool(torch.isfinite(value.detach().sum())) for value in inputs)
        if not ctx.finite:
            return means.new_full((batch, channels + 1, *view.size), torch.nan)
        image = torch.empty(batch, CHANNELS + 1, *view.size)
        pictures = image.numpy()
        frames = each(lambda b: _Frame(tuple(value[b] for value in gaussians), view), range(batch))
        each(lambda part: frames[part[0]].draw(pictures[part[0]], *part[1:]), _parts(batch, view))
        ctx.frames = frames
        if channels == CHANNELS:
            return image
        return torch.cat([image[:, :channels], image[:, CHANNELS:]], 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.finite:
            return *(gradient.new_full(shape, torch.nan) for shape in ctx.shapes), None
        frames, view = ctx.frames, ctx.view
        channels = gradient.shape[1] - 1
        if channels < CHANNELS:
            none = gradient.new_zeros(len(frames), CHANNELS - channels, *view.size)
            gradient = torch.cat([gradient[:, :channels], none, gradient[:, channels:]], 1)
        wanted = _array(gradient)
        parts = _parts(len(frames), view)
        moments = each(lambda part: frames[part[0]].undraw(wanted[part[0]], *part[1:]), parts)
        out = [np.empty(shape, np.float32) for shape in ctx.shapes]

        def finish(b: int) -> None:
            own = [sums for part, sums in zip(parts, moments, strict=True) if part[0] == b]
            frames[b].backpropagate(own, tuple(value[b] for value in out))

        each(finish, range(len(frames)))
        return *(torch.from_numpy(value) for value in out), None


def _array(value: Tensor) -> FloatArray:
    if value.dtype != torch.float32 or value.device.type != "cpu":
        raise ValueError(f"a {value.dtype} tensor on {value.device} cannot be drawn, only float32 on the CPU")
    array: FloatArray = value.detach().contiguous().numpy()
    return array


def _parts(batch: int, view: View) -> list[tuple[int, int, int]]:
    """Frame, first tile and one past the last of what one thread draws in one go.

    Whole frames where they go evenly into the threads; else a frame is cut into one strip for each thread.
    """
    threads, tiles = kernel_threads(), int(view.grid.prod())
    strips = 1 if batch % threads == 0 else threads
    bounds = [tiles * k // strips for k in range(strips + 1)]
    return [(b, bounds[k], bounds[k + 1]) for b in range(batch) for k in range(strips)]
