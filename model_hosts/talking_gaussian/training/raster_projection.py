"""The two ends of drawing: tensors to the planes that `rendering.projection` reads, and its derivative."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import float32, njit

from model_hosts.talking_gaussian.bundle import FloatArray
from model_hosts.talking_gaussian.rendering.limits import NEAR

_CHUNK = 128
_IN = 22
_OUT = 11
_NEAR = np.float32(NEAR)
_LEAST = np.float32(1e-12)


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def fill_planes(
    means: FloatArray,
    quats: FloatArray,
    scales: FloatArray,
    opacities: FloatArray,
    colours: FloatArray,
    planes: FloatArray,
) -> None:
    """Arranges Gaussians as `project` reads them.

    Args:
        means: [N, 3].
        quats: [N, 4] wxyz.
        scales: [N, 3].
        opacities: [N].
        colours: [N, C].
        planes: [14, N], filled; the first three colours go along.
    """
    count = opacities.size
    shown = min(3, colours.shape[1])
    for base in range(0, count, _CHUNK):
        stop = min(count, base + _CHUNK)
        for k in range(3):
            for i in range(base, stop):
                planes[k, i] = means[i, k]
                planes[3 + k, i] = scales[i, k]
        for k in range(4):
            for i in range(base, stop):
                planes[6 + k, i] = quats[i, k]
        for i in range(base, stop):
            planes[10, i] = math.log(max(opacities[i], _LEAST))
        for k in range(3):
            for i in range(base, stop):
                planes[11 + k, i] = colours[i, k] if k < shown else float32(0)


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def backpropagate(  # noqa: PLR0915 - one straight line of arithmetic, as `project`
    planes: FloatArray,
    records: FloatArray,
    depth: FloatArray,
    moments: FloatArray,
    camera: FloatArray,
    size: npt.NDArray[np.int64],
    means: FloatArray,
    quats: FloatArray,
    scales: FloatArray,
    opacities: FloatArray,
    colours: FloatArray,
) -> None:
    """From the sums over pixels to the derivatives by what was drawn; the derivative of `project`.

    Args:
        planes: [14, N] of `fill_planes`.
        records: [N, RECORD] of `project`.
        depth: [N] of `project`.
        moments: [N, RECORD], the `MOMENTS` of `raster_vectors`.
        camera: [3] focal length and principal point in pixels.
        size: [2] width and height of the image in pixels.
        means: [N, 3], filled with derivatives; 0 for what cannot be seen.
        quats: [N, 4], likewise, and so on.
        scales: [N, 3].
        opacities: [N].
        colours: [N, C].
    """
    zero = float32(0)
    one = float32(1)
    two = float32(2)
    focal, cx, cy = camera[0], camera[1], camera[2]
    width, height = float32(size[0]), float32(size[1])
    margin_x = float32(0.15) * width / focal
    margin_y = float32(0.15) * height / focal
    left, right = -cx / focal - margin_x, (width - cx) / focal + margin_x
    top, bottom = -cy / focal - margin_y, (height - cy) / focal + margin_y
    count = depth.size
    # One array, for the reason that `project` gives.
    chunk = np.empty((_IN + _OUT, _CHUNK), np.float32)
    for base in range(0, count, _CHUNK):
        n = min(_CHUNK, count - base)
        for k in range(11):
            for j in range(n):
                chunk[k, j] = planes[k, base + j]
        for j in range(n):
            chunk[11, j] = depth[base + j]
            for k in range(3):
                chunk[12 + k, j] = records[base + j, 2 + k]
            for k in range(6):
                chunk[15 + k, j] = moments[base + j, k]
        for j in range(n):
            seen = chunk[11, j] > zero
            x, y, z = chunk[0, j], chunk[1, j], max(chunk[2, j], _NEAR)
            sx, sy, sz = chunk[3, j], chunk[4, j], chunk[5, j]
            qw, qx, qy, qz = chunk[6, j], chunk[7, j], chunk[8, j], chunk[9, j]
            unit = one / math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
            qw *= unit
            qx *= unit
            qy *= unit
            qz *= unit
            r00, r01, r02 = (
                one - two * (qy * qy + qz * qz),
                two * (qx * qy - qw * qz),
                two * (qx * qz + qw * qy),
            )
            r10, r11, r12 = (
                two * (qx * qy + qw * qz),
                one - two * (qx * qx + qz * qz),
                two * (qy * qz - qw * qx),
            )
            r20, r21, r22 = (
                two * (qx * qz - qw * qy),
                two * (qy * qz + qw * qx),
                one - two * (qx * qx + qy * qy),
            )
            m00, m01, m02 = r00 * sx, r01 * sy, r02 * sz
            m10, m11, m12 = r10 * sx, r11 * sy, r12 * sz
            m20, m21, m22 = r20 * sx, r21 * sy, r22 * sz
            inverse = one / z
            tx, ty = x * inverse, y * inverse
            bent_x, bent_y = min(right, max(left, tx)), min(bottom, max(top, ty))
            scale = focal * inverse
            # U = J M, the covariance is U U^T + the dilation.
            u00, u01, u02 = (
                scale * (m00 - bent_x * m20),
                scale * (m01 - bent_x * m21),
                scale * (m02 - bent_x * m22),
            )
            u10, u11, u12 = (
                scale * (m10 - bent_y * m20),
                scale * (m11 - bent_y * m21),
                scale * (m12 - bent_y * m22),
            )
            ka, kb, kc = chunk[12, j], chunk[13, j], chunk[14, j]
            s, s_x, s_y = chunk[15, j], chunk[16, j], chunk[17, j]
            s_xx, s_xy, s_yy = chunk[18, j], chunk[19, j], chunk[20, j]
            # The exponent is ka dx^2 + kb dx dy + kc dy^2 + log opacity.
            screen_x = two * ka * s_x + kb * s_y
            screen_y = kb * s_x + two * kc * s_y
            # By the covariance: -K G K with the conic K and its G = -1/2 [[s_xx, s_xy], [s_xy, s_yy]].
            a, b, c = -two * ka, -kb, -two * kc
            h00, h01 = a * s_xx + b * s_xy, a * s_xy + b * s_yy
            h10, h11 = b * s_xx + c * s_xy, b * s_xy + c * s_yy
            # Twice the derivative by the covariance, as U stands in it twice.
            g00, g01, g11 = h00 * a + h01 * b, h00 * b + h01 * c, h10 * b + h11 * c
            v00, v01, v02 = g00 * u00 + g01 * u10, g00 * u01 + g01 * u11, g00 * u02 + g01 * u12
            v10, v11, v12 = g01 * u00 + g11 * u10, g01 * u01 + g11 * u11, g01 * u02 + g11 * u12
            # By M = R S.
            n00, n01, n02 = scale * v00, scale * v01, scale * v02
            n10, n11, n12 = scale * v10, scale * v11, scale * v12
            n20 = -scale * (bent_x * v00 + bent_y * v10)
            n21 = -scale * (bent_x * v01 + bent_y * v11)
            n22 = -scale * (bent_x * v02 + bent_y * v12)
            chunk[_IN + 7, j] = n00 * r00 + n10 * r10 + n20 * r20 if seen else zero
            chunk[_IN + 8, j] = n01 * r01 + n11 * r11 + n21 * r21 if seen else zero
            chunk[_IN + 9, j] = n02 * r02 + n12 * r12 + n22 * r22 if seen else zero
            # By R, then by the quaternion of length one, then by the one that was given.
            n00, n10, n20 = n00 * sx, n10 * sx, n20 * sx
            n01, n11, n21 = n01 * sy, n11 * sy, n21 * sy
            n02, n12, n22 = n02 * sz, n12 * sz, n22 * sz
            dw = two * (qx * (n21 - n12) + qy * (n02 - n20) + qz * (n10 - n01))
            dx = two * (qy * (n01 + n10) + qz * (n02 + n20) + qw * (n21 - n12)) - two * two * qx * (n11 + n22)
            dy = two * (qx * (n01 + n10) + qz * (n12 + n21) + qw * (n02 - n20)) - two * two * qy * (n00 + n22)
            dz = two * (qx * (n02 + n20) + qy * (n12 + n21) + qw * (n10 - n01)) - two * two * qz * (n00 + n11)
            along = dw * qw + dx * qx + dy * qy + dz * qz
            chunk[_IN + 3, j] = (dw - along * qw) * unit if seen else zero
            chunk[_IN + 4, j] = (dx - along * qx) * unit if seen else zero
            chunk[_IN + 5, j] = (dy - along * qy) * unit if seen else zero
            chunk[_IN + 6, j] = (dz - along * qz) * unit if seen else zero
            # By J = scale [[1, 0, -bent_x], [0, 1, -bent_y]]: its derivative is V M^T.
            j00, j02 = v00 * m00 + v01 * m01 + v02 * m02, v00 * m20 + v01 * m21 + v02 * m22
            j11, j12 = v10 * m10 + v11 * m11 + v12 * m12, v10 * m20 + v11 * m21 + v12 * m22
            by_scale = j00 + j11 - bent_x * j02 - bent_y * j12
            by_tx = focal * screen_x - (scale * j02 if bent_x == tx else zero)
            by_ty = focal * screen_y - (scale * j12 if bent_y == ty else zero)
            chunk[_IN + 0, j] = by_tx * inverse if seen else zero
            chunk[_IN + 1, j] = by_ty * inverse if seen else zero
            chunk[_IN + 2, j] = -(by_tx * tx + by_ty * ty + by_scale * scale) * inverse if seen else zero
            chunk[_IN + 10, j] = s * math.exp(-chunk[10, j]) if seen else zero
        for j in range(n):
            for k in range(3):
                means[base + j, k] = chunk[_IN + k, j]
                scales[base + j, k] = chunk[_IN + 7 + k, j]
            for k in range(4):
                quats[base + j, k] = chunk[_IN + 3 + k, j]
            opacities[base + j] = chunk[_IN + 10, j]
            for k in range(colours.shape[1]):
                colours[base + j, k] = moments[base + j, 6 + k]
