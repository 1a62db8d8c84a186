"""Drawing Gaussians differentiably: gsplat on CUDA, our own kernels on a processor."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from model_hosts.talking_gaussian.rendering.limits import NEAR
from model_hosts.talking_gaussian.training.cuda import check_cuda


def check_device(device: torch.device) -> None:
    """Finds out before the first step whether the device can draw; a CPU always can.

    Args:
        device: Where training would run.

    Raises:
        DeviceUnsuitableError: It cannot.
    """
    if device.type == "cuda":
        check_cuda()


class Splats(NamedTuple):
    """Gaussians in camera space for a batch of frames.

    Attributes:
        means: [B, N, 3] metres.
        quats: [B, N, 4] wxyz, of length one.
        scales: [B, N, 3] metres.
        opacities: [B, N].
        colours: [B, N, C].
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colours: Tensor


def rasterise(splats: Splats, focal: float, centre: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Draws over nothing.

    Args:
        splats: What to draw.
        focal: Focal length, pixels.
        centre: Principal point (x, y), pixels.
        size: Height and width.

    Returns:
        [B, C + 1, H, W]: colours weighted by coverage, then the coverage (alpha).
    """
    if splats.means.is_cuda:
        return _gsplat(splats, focal, centre, size)
    from model_hosts.talking_gaussian.training.cpu_raster import draw  # noqa: PLC0415 - needs numba

    return draw(*splats, focal, centre, size)


def _gsplat(splats: Splats, focal: float, centre: tuple[float, float], size: tuple[int, int]) -> Tensor:
    from gsplat import rasterization  # noqa: PLC0415 - exists in the CUDA environment only

    batch = len(splats.means)
    view, camera = _camera(focal, centre, splats.means.device)
    image, alpha, _ = rasterization(
        splats.means,
        splats.quats,
        splats.scales,
        splats.opacities,
        splats.colours,
        view.expand(batch, 1, 4, 4),
        camera.expand(batch, 1, 3, 3),
        size[1],
        size[0],
        packed=False,
        near_plane=NEAR,
    )
    return torch.cat([image[:, 0], alpha[:, 0]], -1).permute(0, 3, 1, 2)


@functools.cache
def _camera(focal: float, centre: tuple[float, float], device: torch.device) -> tuple[Tensor, Tensor]:
    """View [4, 4] that changes nothing, and intrinsics [3, 3]; kept, since a copy to a GPU waits for it."""
    intrinsics = [[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]]
    return torch.eye(4, device=device), torch.tensor(intrinsics, device=device)
