"""Compiled loops of the deformation: fused passes over planar arrays, without the interpreter lock."""

from __future__ import annotations

import math

import numpy as np
from numba import float32, njit

from model_hosts.talking_gaussian.bundle import FloatArray

_SH1 = np.float32(0.4886025)


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def add_relu(values: FloatArray, addend: FloatArray) -> None:
    """`values = max(values + addend, 0)` in place; both [rows, columns]."""
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            values[row, column] = max(values[row, column] + addend[row, column], float32(0))


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def add_bias_relu(values: FloatArray, bias: FloatArray) -> None:
    """`values = max(values + bias[:, None], 0)` in place; [rows, columns] and [rows]."""
    for row in range(values.shape[0]):
        shift = bias[row]
        for column in range(values.shape[1]):
            values[row, column] = max(values[row, column] + shift, float32(0))


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def shade(
    rgb: FloatArray, sh: FloatArray, xyz: FloatArray, eye: FloatArray, planes: FloatArray, start: int
) -> None:
    """Adds degree-1 spherical harmonics to colours and clamps them at 0.

    Args:
        rgb: [3, n] colours after deformation.
        sh: [9, n], coefficient-major.
        xyz: [3, n] undeformed centres in the head frame.
        eye: [3] camera centre in the head frame.
        planes: Splat planes; rows 11 to 13 are written from column `start`.
        start: First column.
    """
    zero = float32(0)
    for i in range(rgb.shape[1]):
        x = xyz[0, i] - eye[0]
        y = xyz[1, i] - eye[1]
        z = xyz[2, i] - eye[2]
        scale = _SH1 / math.sqrt(x * x + y * y + z * z)
        x *= scale
        y *= scale
        z *= scale
        planes[11, start + i] = max(zero, rgb[0, i] - y * sh[0, i] + z * sh[3, i] - x * sh[6, i])
        planes[12, start + i] = max(zero, rgb[1, i] - y * sh[1, i] + z * sh[4, i] - x * sh[7, i])
        planes[13, start + i] = max(zero, rgb[2, i] - y * sh[2, i] + z * sh[5, i] - x * sh[8, i])


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def follow_track(
    xyz: FloatArray, turn: FloatArray, pivot: FloatArray, shift: FloatArray, planes: FloatArray, start: int
) -> None:
    """Moves torso centres by the 2-D similarity of the torso track.

    Args:
        xyz: [3, n] centres in the camera frame, metres.
        turn: [2] scale*cos and scale*sin of the angle.
        pivot: [2] pivot over depth.
        shift: [2] translation over depth.
        planes: Splat planes; rows 0 to 2 are written from column `start`.
        start: First column.
    """
    c, s = turn[0], turn[1]
    for i in range(xyz.shape[1]):
        z = xyz[2, i]
        px = pivot[0] * z
        py = pivot[1] * z
        x = xyz[0, i] - px
        y = xyz[1, i] - py
        planes[0, start + i] = c * x - s * y + px + shift[0] * z
        planes[1, start + i] = s * x + c * y + py + shift[1] * z
        planes[2, start + i] = z
