"""Compiled loop of the original's colours: spherical harmonics of degree 2."""

from __future__ import annotations

import math

import numpy as np
from numba import float32, njit

from model_hosts.talking_gaussian.bundle import FloatArray

_SH0 = np.float32(0.28209479)
_SH1 = np.float32(0.48860251)
_SH2 = (np.float32(1.0925484), np.float32(0.31539157), np.float32(0.54627422))


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def shade(planes: FloatArray, start: int, sh: FloatArray, eye: FloatArray) -> None:
    """Writes the colours of Gaussians, `max(0, 0.5 + harmonics)` in the direction they are seen in.

    Args:
        planes: Splat planes; rows 0 to 2 are read, rows 11 to 13 of n columns from `start` are written.
        start: First column.
        sh: [27, n], coefficient by coefficient, each rgb.
        eye: [3] camera centre in the frame of the planes.
    """
    one, half, zero = float32(1), float32(0.5), float32(0)
    for i in range(sh.shape[1]):
        k = start + i
        x = planes[0, k] - eye[0]
        y = planes[1, k] - eye[1]
        z = planes[2, k] - eye[2]
        unit = one / math.sqrt(x * x + y * y + z * z)
        x *= unit
        y *= unit
        z *= unit
        xy = _SH2[0] * x * y
        yz = -_SH2[0] * y * z
        zz = _SH2[1] * (z * z + z * z - x * x - y * y)
        xz = -_SH2[0] * x * z
        xx = _SH2[2] * (x * x - y * y)
        for channel in range(3):
            value = half + _SH0 * sh[channel, i]
            value += _SH1 * (z * sh[6 + channel, i] - y * sh[3 + channel, i] - x * sh[9 + channel, i])
            value += xy * sh[12 + channel, i] + yz * sh[15 + channel, i] + zz * sh[18 + channel, i]
            value += xz * sh[21 + channel, i] + xx * sh[24 + channel, i]
            planes[11 + channel, k] = max(zero, value)
