"""Quaternions wxyz, in torch and of numpy's matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    # Types only: see `cuda`.
    from model_hosts.talking_gaussian.bundle import FloatArray


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Products of quaternions [..., 4] wxyz."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def quaternion(r: FloatArray) -> FloatArray:
    """A rotation [3, 3] as wxyz.

    Taken from the matrix whose largest eigenvector is the quaternion (Bar-Itzhack 2000), which is stable for
    half turns: OpenCV views of heads are near one.
    """
    r = r.astype(np.float64)
    k = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
            [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1]],
            [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    return np.asarray(np.linalg.eigh(k)[1][:, -1], np.float32)
