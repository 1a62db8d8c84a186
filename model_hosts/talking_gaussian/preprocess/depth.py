"""Depth of the key frame: where in space the pixels are that the first Gaussians are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import distance_transform_edt, gaussian_filter

from model_hosts.talking_gaussian.preprocess.dataset import BACKGROUND, CLOTHES, NECK

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_FALL_OFF = 0.7
"""How fast hair and ears go back beside the outline of the face: metres for a metre sideways."""
_DEEPEST = 0.09
"""Nothing of the head is further behind the outline of its face."""
_TORSO_BEHIND = 0.02
"""The torso is this far behind the chin, in metres."""


def key_depth(labels: ByteArray, seen: Doubles, camera: Doubles, chin: int, focal: float) -> FloatArray:
    """Camera depth of every pixel of the person in metres, float32 [h, w]; 0 is background.

    Args:
        labels: Label map of the frame, uint8 [h, w].
        seen: Where the landmarks of the face are seen, [P, 2] pixels.
        camera: Where they are in the camera's frame, [P, 3] metres.
        chin: Which of them is the tip of the chin.
        focal: In pixels.
    """
    height, width = labels.shape
    rows, columns = np.mgrid[:height, :width] + 0.5
    depth: Doubles = LinearNDInterpolator(seen, camera[:, 2])(np.stack([columns, rows], -1))
    outside = np.isnan(depth)
    distance, nearest = distance_transform_edt(outside, return_indices=True)
    metres = distance / focal * camera[:, 2].mean()
    depth = np.where(outside, depth[tuple(nearest)] + np.minimum(_FALL_OFF * metres, _DEEPEST), depth)
    depth = np.where(outside, gaussian_filter(depth, 2.0 * width / 512), depth)
    torso = np.isin(labels, (NECK, CLOTHES))
    depth[torso] = camera[chin, 2] + _TORSO_BEHIND
    depth[labels == BACKGROUND] = 0
    return depth.astype(np.float32)
