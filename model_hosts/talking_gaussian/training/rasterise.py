"""Drawing Gaussians differentiably: gsplat on CUDA, and a plain dense version for tests and tiny pictures."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model_hosts.talking_gaussian.training.cuda import DeviceUnsuitableError, check_cuda

BLUR = 0.3
"""Added to the screen-space variances, in square pixels, as everywhere in Gaussian splatting."""
_LEAST_ALPHA = 1 / 255
_MOST_ALPHA = 0.999
_NEAR = 0.05


_DENSE_LIMIT = 50_000_000
"""Gaussians times pixels that the dense version takes; half a gigabyte for each frame of a step."""


def check_device(device: torch.device, gaussians: int, size: tuple[int, int]) -> None:
    """Finds out before the first step whether the device can draw.

    Args:
        device: Where training would run.
        gaussians: How many are drawn.
        size: Height and width of the pictures.

    Raises:
        DeviceUnsuitableError: It cannot.
    """
    if device.type == "cuda":
        check_cuda()
    elif gaussians * size[0] * size[1] > _DENSE_LIMIT:
        raise DeviceUnsuitableError(
            f"{gaussians} Gaussians at {size[1]}x{size[0]} need an NVIDIA GPU; a CPU only trains tests"
        )


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
    return dense(splats, focal, centre, size)


def _gsplat(splats: Splats, focal: float, centre: tuple[float, float], size: tuple[int, int]) -> Tensor:
    from gsplat import rasterization  # noqa: PLC0415 - exists in the CUDA environment only

    batch = len(splats.means)
    device = splats.means.device
    camera = torch.tensor([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]], device=device)
    image, alpha, _ = rasterization(
        splats.means,
        splats.quats,
        splats.scales,
        splats.opacities,
        splats.colours,
        torch.eye(4, device=device).expand(batch, 1, 4, 4),
        camera.expand(batch, 1, 3, 3),
        size[1],
        size[0],
        packed=False,
        near_plane=_NEAR,
    )
    return torch.cat([image[:, 0], alpha[:, 0]], -1).permute(0, 3, 1, 2)


def dense(splats: Splats, focal: float, centre: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Every Gaussian at every pixel: time and memory grow with N * H * W, so only for small pictures."""
    order = torch.argsort(splats.means[..., 2], 1)
    means, quats, scales, colours = (
        torch.gather(value, 1, order[..., None].expand(-1, -1, value.shape[-1]))
        for value in (splats.means, splats.quats, splats.scales, splats.colours)
    )
    opacities = torch.gather(splats.opacities, 1, order)
    x, y, z = means.unbind(-1)
    z = z.clamp_min(_NEAR)
    covariance = _screen_covariance(means, quats, scales, focal, centre, size)
    a, b, c = covariance[..., 0, 0] + BLUR, covariance[..., 0, 1], covariance[..., 1, 1] + BLUR
    determinant = a * c - b * b
    columns = torch.arange(size[1], device=means.device) + 0.5
    rows = torch.arange(size[0], device=means.device) + 0.5
    dx = columns[None, None, None, :] - (focal * x / z + centre[0])[..., None, None]
    dy = rows[None, None, :, None] - (focal * y / z + centre[1])[..., None, None]
    conic_a, conic_b, conic_c = (value / determinant for value in (c, -b, a))
    power = -0.5 * (
        conic_a[..., None, None] * dx * dx
        + 2 * conic_b[..., None, None] * dx * dy
        + conic_c[..., None, None] * dy * dy
    )
    alpha = (opacities[..., None, None] * torch.exp(power)).clamp(max=_MOST_ALPHA)
    alpha = torch.where((alpha >= _LEAST_ALPHA) & (means[..., 2] > _NEAR)[..., None, None], alpha, 0.0)
    left = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], 1)
    image = torch.einsum("bnhw,bnc->bchw", alpha * before, colours)
    return torch.cat([image, 1 - left[:, -1:]], 1)


def _screen_covariance(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    focal: float,
    centre: tuple[float, float],
    size: tuple[int, int],
) -> Tensor:
    """Covariances [B, N, 2, 2] in square pixels by the local affine approximation of the projection."""
    axes = rotation_matrices(quats) * scales[..., None, :]
    x, y, z = means.unbind(-1)
    z = z.clamp_min(_NEAR)
    # Far outside the picture the approximation explodes; the limits are those of gsplat.
    margin_x, margin_y = 0.3 * 0.5 * size[1] / focal, 0.3 * 0.5 * size[0] / focal
    x = z * (x / z).clamp(-centre[0] / focal - margin_x, (size[1] - centre[0]) / focal + margin_x)
    y = z * (y / z).clamp(-centre[1] / focal - margin_y, (size[0] - centre[1]) / focal + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([focal / z, zero, -focal * x / (z * z)], -1),
            torch.stack([zero, focal / z, -focal * y / (z * z)], -1),
        ],
        -2,
    )
    projected = jacobian @ axes
    return projected @ projected.transpose(-1, -2)


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of unit quaternions [..., 4] wxyz."""
    w, x, y, z = quats.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)
