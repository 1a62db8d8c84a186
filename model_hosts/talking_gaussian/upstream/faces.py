"""Landmarks and action units as the original's preprocessing gives them, made of ours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.upstream.driving import FULL_INTENSITY, SOURCES

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

TABLE = ("AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU25", "AU45")
"""The action units of au.csv."""
LANDMARKS = (478, 68)
"""Numbers of landmarks that can be used: MediaPipe's face mesh, or the 68 points."""
_REST = 0.05
_WIDE = 0.99

# fmt: off
_MESH_OF_68 = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,  # lips
)
# fmt: on
"""The vertex of MediaPipe's mesh nearest to each of the 68 points."""


def landmarks_68(points: FloatArray) -> FloatArray:
    """The 68 points [T, 68, 2] in pixels, of these or of MediaPipe's [T, 478, 2 or more]."""
    return points[..., :2] if points.shape[1] == len(_MESH_OF_68) else points[:, list(_MESH_OF_68), :2]


def table_units(
    units: FloatArray, names: tuple[str, ...], opening: FloatArray, training: IntArray
) -> FloatArray:
    """Intensities of action units, 0 to 5, as OpenFace estimates them.

    A face unit counts from where it rests in this recording. Parted lips (AU25) come from the visible inside
    of the mouth; the original only asks which frames have most of it.

    Args:
        units: Face units, float32 [T, 52].
        names: Their ARKit names.
        opening: Visible inside of the mouth, float32 [T].
        training: The frames that tell what rest is.

    Returns:
        float32 [T, 8], in the order of `TABLE`.
    """
    columns = []
    for name in TABLE:
        if name == "AU25":
            columns.append(FULL_INTENSITY * opening / max(float(np.quantile(opening, _WIDE)), 1e-6))
            continue
        values = np.mean([units[:, names.index(source)] for source in SOURCES[name]], 0)
        columns.append(FULL_INTENSITY * (values - np.quantile(values[training], _REST)))
    return np.clip(np.stack(columns, 1), 0, FULL_INTENSITY).astype(np.float32)
