"""Pictures on a GPU as the encoder takes them."""

from __future__ import annotations

import torch
from torch import Tensor

# BT.601, limited range: rows Y, Cb, Cr of R'G'B' in 0..1, and their offsets.
_MATRIX = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
_OFFSET = (16.5, 128.5, 128.5)


def yuv_planes(pictures: Tensor) -> Tensor:
    """YUV 4:2:0, see `rasteriser.YuvImage`.

    Args:
        pictures: [B, height, width, 3] in 0..1; height and width are even.

    Returns:
        uint8 [B, height * 3 / 2, width].
    """
    halves = pictures.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).mean((2, 4))
    planes = []
    for pixels, weights, offset in zip((pictures, halves, halves), _MATRIX, _OFFSET, strict=True):
        red, green, blue = pixels.unbind(-1)
        # Not a product of matrices, which may be in TF32.
        values = weights[0] * red + weights[1] * green + weights[2] * blue + offset
        planes.append(values.to(torch.uint8).flatten(1))
    return torch.cat(planes, 1).unflatten(1, (-1, pictures.shape[2]))
