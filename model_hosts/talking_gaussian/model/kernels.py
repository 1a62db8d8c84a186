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
def shade(planes: FloatArray, start: int, sh: FloatArray, xyz: FloatArray, eye: FloatArray) -> None:
    """Adds degree-1 spherical harmonics to colours and clamps them at 0, in place.

    Args:
        planes: Splat planes; rows 11 to 13 of n columns from `start` are changed.
        start: First column.
        sh: [9, n], coefficient-major.
        xyz: [3, n] undeformed centres in the head frame.
        eye: [3] camera centre in the head frame.
    """
    zero = float32(0)
    for i in range(sh.shape[1]):
        x = xyz[0, i] - eye[0]
        y = xyz[1, i] - eye[1]
        z = xyz[2, i] - eye[2]
        scale = _SH1 / math.sqrt(x * x + y * y + z * z)
        x *= scale
        y *= scale
        z *= scale
        k = start + i
        planes[11, k] = max(zero, planes[11, k] - y * sh[0, i] + z * sh[3, i] - x * sh[6, i])
        planes[12, k] = max(zero, planes[12, k] - y * sh[1, i] + z * sh[4, i] - x * sh[7, i])
        planes[13, k] = max(zero, planes[13, k] - y * sh[2, i] + z * sh[5, i] - x * sh[8, i])


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def follow_track(
    planes: FloatArray, start: int, stop: int, turn: FloatArray, pivot: FloatArray, shift: FloatArray
) -> None:
    """Moves torso centres by the 2-D similarity of the torso track, and clamps colours at 0, in place.

    Args:
        planes: Splat planes in the camera frame; columns `start` to `stop` are changed.
        start: First column.
        stop: One past the last column.
        turn: [2] scale*cos and scale*sin of the angle.
        pivot: [2] pivot over depth.
        shift: [2] translation over depth.
    """
    c, s = turn[0], turn[1]
    zero = float32(0)
    for i in range(start, stop):
        z = planes[2, i]
        px = pivot[0] * z
        py = pivot[1] * z
        x = planes[0, i] - px
        y = planes[1, i] - py
        planes[0, i] = c * x - s * y + px + shift[0] * z
        planes[1, i] = s * x + c * y + py + shift[1] * z
        planes[11, i] = max(zero, planes[11, i])
        planes[12, i] = max(zero, planes[12, i])
        planes[13, i] = max(zero, planes[13, i])
