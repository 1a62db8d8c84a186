"""Splatting in plain torch, every Gaussian at every pixel: the yardstick of what is drawn differentiably.

Time and memory grow with N * H * W, so only for small pictures. torch derives its gradients, in float64
if the inputs are. It shares no code with what it measures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model_hosts.talking_gaussian.training.rasterise import Splats

BLUR = 0.3
_LEAST_ALPHA = 1 / 255
_MOST_ALPHA = 0.999
_NEAR = 0.05


def dense(splats: Splats, focal: float, centre: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """[B, C + 1, H, W], as `rasterise` draws it; quaternions must have length one."""
    order = torch.argsort(splats.means[..., 2], 1)
    splats = Splats(
        *(
            torch.gather(value, 1, order.reshape(*order.shape, *[1] * (value.ndim - 2)).expand_as(value))
            for value in splats
        )
    )
    alpha = coverage(splats, focal, centre, size).clamp(max=_MOST_ALPHA)
    alpha = torch.where((alpha >= _LEAST_ALPHA) & (splats.means[..., 2] > _NEAR)[..., None, None], alpha, 0.0)
    left = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], 1)
    image = torch.einsum("bnhw,bnc->bchw", alpha * before, splats.colours)
    return torch.cat([image, 1 - left[:, -1:]], 1)


def doubtful(splats: Splats, focal: float, centre: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Pixels [B, 1, H, W] that rounding may change for good: at a limit of opacity, or almost opaque."""
    alpha = coverage(splats, focal, centre, size)
    edge = ((alpha / _LEAST_ALPHA - 1).abs() < 1e-3) | ((alpha / _MOST_ALPHA - 1).abs() < 1e-3)
    left = (1 - alpha.clamp(max=_MOST_ALPHA)).prod(1, keepdim=True)
    return edge.any(1, keepdim=True) | (left < 1e-3)


def coverage(splats: Splats, focal: float, centre: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """How far each Gaussian covers each pixel, [B, N, H, W], before any limit."""
    means, quats, scales, opacities, _ = splats
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
    return opacities[..., None, None] * torch.exp(power)


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
