"""SSIM on a processor: five blurs and their derivative in one kernel for each channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import float32, njit
from torch import Tensor

from model_hosts.talking_gaussian.bundle import FloatArray
from model_hosts.talking_gaussian.training.threads import each

_SLOPES = 3
"""Derivatives that the way back needs: by the picture's mean, its square's mean, its product's mean."""


def similarity(image: Tensor, target: Tensor, window: FloatArray, first: float, second: float) -> Tensor:
    """SSIM of every pixel, with zeros beyond the border (Wang et al., 2004).

    Args:
        image: [B, C, H, W] in 0..1, float32 on the CPU; the derivative goes to it alone.
        target: Likewise.
        window: [R + 1] half of the blur's weights, the middle one first; R is 5.
        first: The constant that steadies the comparison of means.
        second: The one that steadies the comparison of variances.

    Returns:
        [B, C, H, W].
    """
    result: Tensor = _Similarity.apply(image, target, window, first, second)
    return result


class _Similarity(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, target: Tensor, window: FloatArray, first: float, second: float
    ) -> Tensor:
        a, b = (value.detach().contiguous().numpy() for value in (image, target))
        result = np.empty_like(a)
        needed = image.requires_grad
        slopes = np.empty((*a.shape[:2], _SLOPES if needed else 0, *a.shape[2:]), np.float32)
        c1, c2 = np.float32(first), np.float32(second)
        each(lambda at: _compare(a[at], b[at], window, c1, c2, result[at], slopes[at]), _planes(a))
        ctx.kept = a, b, window, slopes
        return torch.from_numpy(result)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        a, b, window, slopes = ctx.kept
        wanted = gradient.contiguous().numpy()
        out = np.empty_like(a)
        each(lambda at: _spread(a[at], b[at], window, slopes[at], wanted[at], out[at]), _planes(a))
        return torch.from_numpy(out), None, None, None, None


def _planes(value: FloatArray) -> list[tuple[int, int]]:
    return [(frame, channel) for frame in range(value.shape[0]) for channel in range(value.shape[1])]


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def _blur(image: FloatArray, window: FloatArray, row: FloatArray, tall: FloatArray, out: FloatArray) -> None:
    """Blurs [H, W].

    Work space: row [W + 10] with zeros at its ends, tall [H + 10, W] with zeros above and below.
    """
    height, width = image.shape
    w0, w1, w2, w3, w4, w5 = window[0], window[1], window[2], window[3], window[4], window[5]
    for y in range(height):
        for x in range(width):
            row[x + 5] = image[y, x]
        for x in range(width):
            near = w0 * row[x + 5] + w1 * (row[x + 4] + row[x + 6]) + w2 * (row[x + 3] + row[x + 7])
            far = (
                w3 * (row[x + 2] + row[x + 8]) + w4 * (row[x + 1] + row[x + 9]) + w5 * (row[x] + row[x + 10])
            )
            tall[y + 5, x] = near + far
    for y in range(height):
        for x in range(width):
            near = w0 * tall[y + 5, x] + w1 * (tall[y + 4, x] + tall[y + 6, x])
            near += w2 * (tall[y + 3, x] + tall[y + 7, x])
            far = w3 * (tall[y + 2, x] + tall[y + 8, x]) + w4 * (tall[y + 1, x] + tall[y + 9, x])
            out[y, x] = near + far + w5 * (tall[y, x] + tall[y + 10, x])


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def _compare(
    image: FloatArray,
    target: FloatArray,
    window: FloatArray,
    first: np.float32,
    second: np.float32,
    result: FloatArray,
    slopes: FloatArray,
) -> None:
    """SSIM of one channel [H, W] and, where there is room for them, its `_SLOPES`."""
    height, width = image.shape
    row, tall = np.zeros(width + 10, np.float32), np.zeros((height + 10, width), np.float32)
    product, blurred = np.empty((height, width), np.float32), np.empty((5, height, width), np.float32)
    _blur(image, window, row, tall, blurred[0])
    _blur(target, window, row, tall, blurred[1])
    for k in range(3):
        left, right = (target if k == 1 else image), (image if k == 0 else target)
        for y in range(height):
            for x in range(width):
                product[y, x] = left[y, x] * right[y, x]
        _blur(product, window, row, tall, blurred[2 + k])
    one, two = float32(1), float32(2)
    keep = slopes.shape[0] > 0
    for y in range(height):
        for x in range(width):
            a, b = blurred[0, y, x], blurred[1, y, x]
            variances = blurred[2, y, x] - a * a + blurred[3, y, x] - b * b + second
            covariance = two * (blurred[4, y, x] - a * b) + second
            squares, means = a * a + b * b + first, two * a * b + first
            inverse = one / (squares * variances)
            similar = means * covariance * inverse
            result[y, x] = similar
            if keep:
                by_square = -similar / variances
                by_product = two * means * inverse
                by_mean = two * b * covariance * inverse - two * a * similar / squares
                slopes[0, y, x] = by_mean - two * a * by_square - b * by_product
                slopes[1, y, x] = by_square
                slopes[2, y, x] = by_product


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def _spread(
    image: FloatArray,
    target: FloatArray,
    window: FloatArray,
    slopes: FloatArray,
    gradient: FloatArray,
    out: FloatArray,
) -> None:
    """The derivative by one channel of the picture [H, W], filled into `out`."""
    height, width = image.shape
    row, tall = np.zeros(width + 10, np.float32), np.zeros((height + 10, width), np.float32)
    weighted, blurred = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    two = float32(2)
    for k in range(_SLOPES):
        for y in range(height):
            for x in range(width):
                weighted[y, x] = slopes[k, y, x] * gradient[y, x]
        _blur(weighted, window, row, tall, blurred)
        for y in range(height):
            for x in range(width):
                if k == 0:
                    out[y, x] = blurred[y, x]
                elif k == 1:
                    out[y, x] += two * image[y, x] * blurred[y, x]
                else:
                    out[y, x] += target[y, x] * blurred[y, x]
