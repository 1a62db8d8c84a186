"""Compiles the kernels, or loads them from numba's cache on disk, before the first frame needs them."""

from __future__ import annotations

import numpy as np

from model_hosts.talking_gaussian.bundle import Camera
from model_hosts.talking_gaussian.model.deformation import PLANES, Segment, Splats
from model_hosts.talking_gaussian.model.kernels import add_bias_relu, add_relu, follow_track, shade
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser
from model_hosts.talking_gaussian.upstream import shading


def compile_kernels() -> None:
    """Runs every kernel of a render once on next to nothing; seconds when they have to be compiled."""
    vector = np.zeros(2, np.float32)
    matrix = np.zeros((2, 2), np.float32)
    add_relu(matrix, matrix)
    add_bias_relu(matrix, vector)
    planes = np.zeros((PLANES, 1), np.float32)
    planes[2:7] = 1
    point = np.ones((3, 1), np.float32)
    shade(planes, 0, np.zeros((9, 1), np.float32), point, np.zeros(3, np.float32))
    shading.shade(planes, 0, np.zeros((27, 1), np.float32), np.zeros(3, np.float32))
    follow_track(planes, 0, 1, vector, vector, vector)
    plate = np.zeros((64, 64, 3), np.uint8)
    segment = Segment(0, 1, np.eye(3, 4, dtype=np.float32))
    CpuRasteriser(Camera(64.0, 32.0, 32.0), plate).draw_yuv(Splats(planes, (segment,)))
