"""SSIM of pictures and its gradient on a GPU, in two passes each (Triton, which comes with torch for CUDA).

The window is separable: one pass blurs along rows, the other along columns and finishes. With mu, E11 and
E12 the blurred image, its square and its product with the target, the similarity S of a pixel depends on the
image only through these three, so its gradient is their derivatives, blurred by the same (symmetric) window.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

_WIDTH = 128
_WARPS = 4


@triton.jit
def _blur_rows(
    image,
    target,
    window,
    rows,
    width,
    count,
    radius: tl.constexpr,
    block: tl.constexpr,
):
    """Along rows: image, target, their squares and their product, each [count]."""
    line = tl.program_id(0).to(tl.int64) * width
    x = tl.program_id(1) * block + tl.arange(0, block)
    a = tl.zeros((block,), tl.float32)
    b = tl.zeros((block,), tl.float32)
    aa = tl.zeros((block,), tl.float32)
    bb = tl.zeros((block,), tl.float32)
    ab = tl.zeros((block,), tl.float32)
    for tap in tl.static_range(2 * radius + 1):
        near = x + tap - radius
        inside = (near >= 0) & (near < width)
        weight = tl.load(window + tap)
        i = tl.load(image + line + near, mask=inside, other=0.0)
        t = tl.load(target + line + near, mask=inside, other=0.0)
        a += weight * i
        b += weight * t
        aa += weight * i * i
        bb += weight * t * t
        ab += weight * i * t
    place = rows + line + x
    here = x < width
    tl.store(place, a, mask=here)
    tl.store(place + count, b, mask=here)
    tl.store(place + 2 * count, aa, mask=here)
    tl.store(place + 3 * count, bb, mask=here)
    tl.store(place + 4 * count, ab, mask=here)


@triton.jit
def _compare(
    rows,
    window,
    similarity,
    slopes,
    height,
    width,
    count,
    c1,
    c2,
    radius: tl.constexpr,
    block: tl.constexpr,
):
    """Along columns; then the similarity, and its derivatives by mu, E11 and E12."""
    y = tl.program_id(0) % height
    line = tl.program_id(0).to(tl.int64) * width
    x = tl.program_id(1) * block + tl.arange(0, block)
    here = x < width
    a = tl.zeros((block,), tl.float32)
    b = tl.zeros((block,), tl.float32)
    aa = tl.zeros((block,), tl.float32)
    bb = tl.zeros((block,), tl.float32)
    ab = tl.zeros((block,), tl.float32)
    for tap in tl.static_range(2 * radius + 1):
        inside = here & (y + tap - radius >= 0) & (y + tap - radius < height)
        weight = tl.load(window + tap)
        place = rows + line + (tap - radius) * width + x
        a += weight * tl.load(place, mask=inside, other=0.0)
        b += weight * tl.load(place + count, mask=inside, other=0.0)
        aa += weight * tl.load(place + 2 * count, mask=inside, other=0.0)
        bb += weight * tl.load(place + 3 * count, mask=inside, other=0.0)
        ab += weight * tl.load(place + 4 * count, mask=inside, other=0.0)
    means = 2 * a * b + c1
    spread = 2 * (ab - a * b) + c2
    squares = a * a + b * b + c1
    variances = aa - a * a + bb - b * b + c2
    scale = 1 / (squares * variances)
    s = means * spread * scale
    tl.store(similarity + line + x, s, mask=here)
    place = slopes + line + x
    slope = 2 * b * (spread - means) * scale - 2 * a * s / squares + 2 * a * s / variances
    tl.store(place, slope, mask=here)
    tl.store(place + count, -s / variances, mask=here)
    tl.store(place + 2 * count, 2 * means * scale, mask=here)


@triton.jit
def _spread_rows(
    slopes,
    gradient,
    window,
    rows,
    width,
    count,
    radius: tl.constexpr,
    block: tl.constexpr,
):
    """Along rows: the derivatives weighted by the gradient that comes in."""
    line = tl.program_id(0).to(tl.int64) * width
    x = tl.program_id(1) * block + tl.arange(0, block)
    mu = tl.zeros((block,), tl.float32)
    e11 = tl.zeros((block,), tl.float32)
    e12 = tl.zeros((block,), tl.float32)
    for tap in tl.static_range(2 * radius + 1):
        near = x + tap - radius
        inside = (near >= 0) & (near < width)
        weight = tl.load(window + tap) * tl.load(gradient + line + near, mask=inside, other=0.0)
        mu += weight * tl.load(slopes + line + near, mask=inside, other=0.0)
        e11 += weight * tl.load(slopes + count + line + near, mask=inside, other=0.0)
        e12 += weight * tl.load(slopes + 2 * count + line + near, mask=inside, other=0.0)
    place = rows + line + x
    here = x < width
    tl.store(place, mu, mask=here)
    tl.store(place + count, e11, mask=here)
    tl.store(place + 2 * count, e12, mask=here)


@triton.jit
def _gather(
    rows,
    image,
    target,
    window,
    result,
    height,
    width,
    count,
    radius: tl.constexpr,
    block: tl.constexpr,
):
    """Along columns; then the gradient of each pixel of the image."""
    y = tl.program_id(0) % height
    line = tl.program_id(0).to(tl.int64) * width
    x = tl.program_id(1) * block + tl.arange(0, block)
    here = x < width
    mu = tl.zeros((block,), tl.float32)
    e11 = tl.zeros((block,), tl.float32)
    e12 = tl.zeros((block,), tl.float32)
    for tap in tl.static_range(2 * radius + 1):
        inside = here & (y + tap - radius >= 0) & (y + tap - radius < height)
        weight = tl.load(window + tap)
        place = rows + line + (tap - radius) * width + x
        mu += weight * tl.load(place, mask=inside, other=0.0)
        e11 += weight * tl.load(place + count, mask=inside, other=0.0)
        e12 += weight * tl.load(place + 2 * count, mask=inside, other=0.0)
    i = tl.load(image + line + x, mask=here, other=0.0)
    t = tl.load(target + line + x, mask=here, other=0.0)
    tl.store(result + line + x, mu + 2 * i * e11 + t * e12, mask=here)


class _Similarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor, window: Tensor, c1: float, c2: float) -> Tensor:
        image, target = image.contiguous(), target.contiguous()
        height, width = image.shape[-2:]
        grid = (image.numel() // width, triton.cdiv(width, _WIDTH))
        rows = image.new_empty(5, *image.shape)
        similarity, slopes = torch.empty_like(image), image.new_empty(3, *image.shape)
        shape = {"radius": len(window) // 2, "block": _WIDTH, "num_warps": _WARPS}
        count = image.numel()
        _blur_rows[grid](image, target, window, rows, width, count, **shape)
        _compare[grid](rows, window, similarity, slopes, height, width, count, c1, c2, **shape)
        ctx.save_for_backward(image, target, window, slopes)
        return similarity

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        image, target, window, slopes = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        height, width = image.shape[-2:]
        grid = (image.numel() // width, triton.cdiv(width, _WIDTH))
        rows, result = torch.empty_like(slopes), torch.empty_like(image)
        shape = {"radius": len(window) // 2, "block": _WIDTH, "num_warps": _WARPS}
        count = image.numel()
        _spread_rows[grid](slopes, gradient, window, rows, width, count, **shape)
        _gather[grid](rows, image, target, window, result, height, width, count, **shape)
        return result, None, None, None, None


def similarity(image: Tensor, target: Tensor, window: Tensor, c1: float, c2: float) -> Tensor:
    """SSIM of every pixel and channel of two pictures, zeros beyond the border.

    Args:
        image: [B, C, H, W] in 0..1, on a GPU; has a gradient.
        target: The same shape; has none.
        window: Weights [2 R + 1], symmetric, on the GPU.
        c1: Constant that steadies the comparison of means (Wang et al., 2004).
        c2: Constant that steadies the comparison of variances.

    Returns:
        [B, C, H, W].
    """
    return cast(Tensor, _Similarity.apply(image, target, window, c1, c2))
