"""The background without the person: what each pixel shows when nobody is before it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, gaussian_filter, zoom

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_MARGIN = 7 / 512
"""Border around the person that is not trusted to be background, in picture widths."""
_NOBODY = 20
_LEAST = 3
"""Pictures that must show a pixel of the background."""


def background(pictures: ByteArray, persons: ByteArray) -> tuple[ByteArray, Mask]:
    """The plate from some pictures of a static camera.

    Args:
        pictures: uint8 [n, h, w, 3].
        persons: How much each pixel belongs to a person, uint8 [n, h, w].

    Returns:
        The plate, uint8 [h, w, 3], and where it was really seen, bool [h, w]; the rest is filled in smoothly
        from around it.
    """
    reach = max(1, round(_MARGIN * pictures.shape[2]))
    covered = np.stack([binary_dilation(person > _NOBODY, iterations=reach) for person in persons])
    seen = len(pictures) - covered.sum(0)
    # Covered pixels sort to the end, so the median of the others is in the middle of the first ones.
    ordered = np.sort(np.where(covered[..., None], np.uint8(255), pictures), axis=0)
    middle = np.maximum(0, (seen - 1) // 2)[None, ..., None]
    plate = np.take_along_axis(ordered, middle, 0)[0]
    known = seen >= min(_LEAST, len(pictures))
    return fill_unknown(plate, known), known


def fill_unknown(picture: ByteArray, known: Mask) -> ByteArray:
    """Fills unknown pixels smoothly from the known ones (push and pull over a pyramid).

    Args:
        picture: uint8 [h, w, 3].
        known: bool [h, w]; when nothing is known the result is grey.
    """
    if known.all():
        return picture
    if not known.any():
        return np.full_like(picture, 128)
    weight = known.astype(np.float32)
    filled = _pull(picture.astype(np.float32) * weight[..., None], weight)
    # A soft edge, so that no line shows where the seen part ends.
    share = np.minimum(gaussian_filter(binary_dilation(~known, iterations=2).astype(np.float32), 2.0), 1)
    share[~known] = 1
    soft = np.stack([gaussian_filter(filled[..., channel], 1.5) for channel in range(3)], -1)
    mixed = picture * (1 - share[..., None]) + soft * share[..., None]
    whole: ByteArray = np.round(np.clip(mixed, 0, 255)).astype(np.uint8)
    return whole


def _pull(weighted: FloatArray, weight: FloatArray) -> FloatArray:
    """Values where there is weight, else those of a picture half the size."""
    height, width = weight.shape
    if min(height, width) < 2:
        mean = weighted.sum((0, 1)) / max(float(weight.sum()), 1e-6)
        whole: FloatArray = weighted + (1 - weight)[..., None] * mean
        return whole.astype(np.float32)
    padded = np.pad(weight, ((0, height % 2), (0, width % 2)))
    coarse_weight = padded.reshape(padded.shape[0] // 2, 2, -1, 2).sum((1, 3))
    values = np.pad(weighted, ((0, height % 2), (0, width % 2), (0, 0)))
    coarse = values.reshape(len(coarse_weight), 2, -1, 2, 3).sum((1, 3))
    scale = np.maximum(coarse_weight, 1)[..., None]
    below = _pull(coarse / scale, np.minimum(coarse_weight, 1))
    large = zoom(below, (2, 2, 1), order=1, grid_mode=True, mode="nearest")[:height, :width]
    share = np.minimum(weight, 1)[..., None]
    mixed: FloatArray = weighted + (1 - share) * large
    return mixed.astype(np.float32)
