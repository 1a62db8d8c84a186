"""Differences between pictures. Every mean over a mask is guarded: an empty mask gives zero, never NaN."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_SIGMA = 1.5
_RADIUS = 5
_C1, _C2 = 0.01**2, 0.03**2


class Structure:
    """SSIM of pictures, with the usual 11x11 Gaussian window and zeros beyond the border.

    Args:
        device: Where the pictures are.
    """

    def __init__(self, device: torch.device) -> None:
        offset = torch.arange(-_RADIUS, _RADIUS + 1)
        window = torch.exp(-0.5 * (offset / _SIGMA) ** 2)
        self._window = (window / window.sum()).to(device)

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """SSIM of every pixel and channel, [B, C, H, W], of two pictures in 0..1; the first is learnt."""
        if image.is_cuda:
            from model_hosts.talking_gaussian.training import cuda_structure  # noqa: PLC0415 - needs Triton

            return cuda_structure.similarity(image, target, self._window, _C1, _C2)
        from model_hosts.talking_gaussian.training import cpu_structure  # noqa: PLC0415 - needs numba

        return cpu_structure.similarity(image, target, self._window[_RADIUS:].numpy(), _C1, _C2)


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
