"""Differences between pictures. Every mean over a mask is guarded: an empty mask gives zero, never NaN."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SIGMA = 1.5
_RADIUS = 5
_C1, _C2 = 0.01**2, 0.03**2


class Structure:
    """SSIM of pictures of one size, with the usual 11x11 Gaussian window and zeros beyond the border.

    On a GPU the blur is two products with banded matrices, which is faster there than a depth-wise
    convolution; on a CPU it is a kernel of its own.
    """

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        self._window = _window()
        self._down = _band(size[0]).to(device)
        self._across = _band(size[1]).to(device)

    def _blur(self, image: Tensor) -> Tensor:
        return self._down @ (image @ self._across)

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """SSIM of every pixel and channel, [B, C, H, W], of two pictures in 0..1."""
        if not image.is_cuda:
            from model_hosts.talking_gaussian.training.cpu_structure import similarity  # noqa: PLC0415 - numba

            return similarity(image, target, self._window[_RADIUS:].numpy(), _C1, _C2)
        return self.by_products(image, target)

    def by_products(self, image: Tensor, target: Tensor) -> Tensor:
        """The same, as a GPU computes it."""
        # The target's own moments need no gradient: blurred apart they cost no backward pass.
        mean_a, aa, ab = torch.chunk(self._blur(torch.cat([image, image * image, image * target], 1)), 3, 1)
        with torch.no_grad():
            mean_b, bb = torch.chunk(self._blur(torch.cat([target, target * target], 1)), 2, 1)
        variance_a, variance_b = aa - mean_a * mean_a, bb - mean_b * mean_b
        covariance = ab - mean_a * mean_b
        numerator = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
        denominator = (mean_a * mean_a + mean_b * mean_b + _C1) * (variance_a + variance_b + _C2)
        similarity: Tensor = numerator / denominator
        return similarity


def _window() -> Tensor:
    offset = torch.arange(-_RADIUS, _RADIUS + 1)
    kernel = torch.exp(-0.5 * (offset / _SIGMA) ** 2)
    return kernel / kernel.sum()


def _band(side: int) -> Tensor:
    """Symmetric matrix [side, side] whose product with a column of pixels is the Gaussian blur of it."""
    kernel = _window()
    index = torch.arange(side)
    distance = (index[:, None] - index[None]).abs()
    return torch.where(distance <= _RADIUS, kernel[(distance + _RADIUS).clamp(max=2 * _RADIUS)], 0.0)


def masked_mean(value: Tensor, mask: Tensor) -> Tensor:
    """Mean of `value` where `mask` (broadcast to it) is one; 0 if it is nowhere."""
    weight = mask.expand_as(value).to(value.dtype)
    return (value * weight).sum() / weight.sum().clamp_min(1.0)


def crop(image: Tensor, corner: Tensor, box: tuple[int, int]) -> Tensor:
    """Boxes [B, C, h, w] of pictures [B, C, H, W]; upper left corners (x, y) [B, 2], box (w, h)."""
    width, height = box
    columns = corner[:, 0, None, None] + torch.arange(width, device=image.device)[None, None]
    rows = corner[:, 1, None, None] + torch.arange(height, device=image.device)[None, :, None]
    # Gathered, because the backward pass of general indexing sorts its indices on a GPU.
    pixel = (rows * image.shape[3] + columns).flatten(1)[:, None].expand(-1, image.shape[1], -1)
    return image.flatten(2).gather(2, pixel).reshape(*image.shape[:2], height, width)


def pyramid(image: Tensor, target: Tensor, mask: Tensor | None = None, levels: int = 3) -> Tensor:
    """Mean absolute difference of Laplacian pyramids, fine bands weighing most: it keeps edges crisp.

    Args:
        image: [B, C, h, w].
        target: What it should be.
        mask: [B, 1, h, w], where to look; everywhere if None.
        levels: Bands.
    """
    total = torch.zeros((), device=image.device)
    difference = image - target
    weight = torch.ones_like(image[:, :1]) if mask is None else mask
    for level in range(levels):
        if min(difference.shape[-2:]) < 4:
            break
        smaller = functional.avg_pool2d(difference, 2, ceil_mode=True)
        back = functional.interpolate(
            smaller, size=difference.shape[-2:], mode="bilinear", align_corners=False
        )
        total = total + masked_mean((difference - back).abs(), weight) * 0.7**level
        difference, weight = smaller, functional.avg_pool2d(weight, 2, ceil_mode=True)
    return total


def psnr(squared_error: float) -> float:
    """Decibels of a mean squared error of pictures in 0..1."""
    return float(-10 * torch.log10(torch.tensor(max(squared_error, 1e-10))))
