"""Draws many frames of an avatar at once on an NVIDIA GPU.

gsplat finds out while it draws how many tiles the Gaussians touch, so drawing runs anew for each batch. What
is before it (networks, poses) and behind it (plate, colours) does the same work on the same memory each time,
and is recorded once for each size of batch as CUDA graphs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import gsplat
import numpy as np
import torch
from torch import Tensor

from model_hosts.talking_gaussian.driving.state import FrameState
from model_hosts.talking_gaussian.rendering.cuda_colours import yuv_planes
from model_hosts.talking_gaussian.rendering.cuda_motion import Driving, Motion
from model_hosts.talking_gaussian.rendering.limits import NEAR

if TYPE_CHECKING:
    from model_hosts.talking_gaussian.bundle import Bundle, FloatArray
    from model_hosts.talking_gaussian.rendering.rasteriser import YuvImage

BATCHES = (1, 8, 32)
"""Frames that are drawn together: one alone, a first fragment, as many as are worth it."""
_WARM_UPS = 2


class CudaPainter:
    """An avatar on the GPU. Threads may share it; one batch is drawn at a time.

    Args:
        bundle: The avatar.
    """

    def __init__(self, bundle: Bundle) -> None:
        # Ten bits of mantissa are enough for the networks; nothing else here multiplies large matrices.
        torch.set_float32_matmul_precision("high")
        device = torch.device("cuda")
        motion = Motion(bundle, device)
        self._lock = threading.Lock()
        # One batch is drawn at a time, so all may share what they need only while they draw.
        pool = torch.cuda.graph_pool_handle()
        with torch.no_grad():
            self._batches = [_Batch(bundle, motion, size, device, pool) for size in BATCHES]

    def draw_yuv(self, frames: FrameState) -> Iterator[YuvImage]:
        """Frames as YUV 4:2:0 (see `Rasteriser.draw_yuv`), in order."""
        for part in _parts(frames):
            yield from self._draw(part, _Batch.yuv).numpy()

    def draw_rgb(self, frames: FrameState) -> Iterator[FloatArray]:
        """Frames as float32 [height, width, 3] RGB in 0..1, in order."""
        for part in _parts(frames):
            yield from self._draw(part, _Batch.rgb).numpy()

    def _draw(self, frames: FrameState, result: Callable[[_Batch], Tensor]) -> Tensor:
        """At most the largest batch, in the processor's memory; the caller's."""
        batch = next(batch for batch in self._batches if batch.size >= len(frames))
        with self._lock, torch.no_grad():
            batch.draw(frames)
            drawn = result(batch)[: len(frames)]
            # Pinned memory is reused by torch: new pages for each batch would cost more than the drawing.
            images = torch.empty(drawn.shape, dtype=drawn.dtype, pin_memory=True)
            images.copy_(drawn)
            return images


def _parts(frames: FrameState) -> Iterator[FrameState]:
    for start in range(0, len(frames), BATCHES[-1]):
        yield frames[start : start + BATCHES[-1]]


class _Batch:
    """So many frames drawn together, on memory of their own.

    Args:
        bundle: The avatar.
        motion: Poses it.
        size: How many frames.
        device: The GPU.
        pool: Memory of the graphs.
    """

    def __init__(
        self, bundle: Bundle, motion: Motion, size: int, device: torch.device, pool: tuple[int, int]
    ) -> None:
        self.size = size
        info, camera = bundle.info, bundle.info.camera
        self._height, self._width = bundle.background.shape[:2]
        self._motion = motion
        self._plate = torch.from_numpy(bundle.background).to(device).float() / 255
        intrinsics = [[camera.focal, 0.0, camera.cx], [0.0, camera.focal, camera.cy], [0.0, 0.0, 1.0]]
        self._camera = torch.tensor(intrinsics, device=device).expand(size, 1, 3, 3)
        self._view = torch.eye(4, device=device).expand(size, 1, 4, 4)
        widths = info.lip_code, len(info.expression_names), 6, 4
        self._values = torch.zeros(size, sum(widths), device=device)
        self._driving = Driving(*self._values.split(widths, 1))
        shape = (size, self._height, self._width)
        self._colours = torch.zeros(*shape, 3, device=device)
        self._coverage = torch.zeros(*shape, 1, device=device)
        self._move()
        self._rasterise()
        self._graphs = [_recorded(part, pool) for part in (self._move, self._finish)]

    def draw(self, frames: FrameState) -> None:
        """Draws frames; those that are missing for a whole batch are copies of the last."""
        values = np.concatenate([frames.lip, frames.expression, frames.pose, frames.torso_track], 1)
        short = self.size - len(values)
        if short:
            values = np.concatenate([values, np.repeat(values[-1:], short, 0)])
        self._values.copy_(torch.from_numpy(np.asarray(values, np.float32)))
        self._graphs[0].replay()
        self._rasterise()
        self._graphs[1].replay()

    def rgb(self) -> Tensor:
        """[size, height, width, 3] in 0..1; good until the next draw."""
        return self._picture

    def yuv(self) -> Tensor:
        """uint8 [size, height * 3 / 2, width]; good until the next draw."""
        return self._planes

    def _move(self) -> None:
        self._splats = self._motion.pose(self._driving)

    def _rasterise(self) -> None:
        splats = self._splats
        colours, coverage, _ = gsplat.rasterization(
            splats.means,
            splats.quats,
            splats.scales,
            splats.opacities,
            splats.colours,
            self._view,
            self._camera,
            self._width,
            self._height,
            near_plane=NEAR,
            packed=False,
        )
        self._colours.copy_(colours[:, 0])
        self._coverage.copy_(coverage[:, 0])

    def _finish(self) -> None:
        """Over the plate, and as YUV 4:2:0."""
        self._picture = torch.addcmul(self._colours, 1 - self._coverage, self._plate).clamp_(0, 1)
        self._planes = yuv_planes(self._picture)


def _recorded(part: Callable[[], None], pool: tuple[int, int]) -> torch.cuda.CUDAGraph:
    """A graph of what a part does on the GPU, drawn once so that its results are there."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            part()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        part()
    graph.replay()
    return graph
