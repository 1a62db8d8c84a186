"""Projection of Gaussians to the image, vectorised over chunks (elliptical weighted average splatting).

Follows Zwicker et al., "EWA splatting" (2002), with the constants of gsplat's rasteriser, so that what was
trained there looks the same here.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import float32, int32, njit

from model_hosts.talking_gaussian.bundle import FloatArray
from model_hosts.talking_gaussian.rendering.limits import DILATION, LOG_255, NEAR

RECORD = 16
"""Floats of a projected Gaussian, 64 bytes: x, y, -A/2, -B, -C/2, log opacity, r, g, b, half width,
half height, shear -B/A, flatness 1/(A*Syy), height of the rightmost point; two are unused. (A, B, C) is the
conic, S the covariance."""
_CHUNK = 128
_OUT = 14
_DILATION = np.float32(DILATION)
_NEAR = np.float32(NEAR)
_LOG_255 = np.float32(LOG_255)


@njit(fastmath=True, nogil=True, cache=True, error_model="numpy")
def project(  # noqa: PLR0915 - one straight line of arithmetic; numba vectorises it only in one piece
    planes: FloatArray,
    view: FloatArray,
    camera: FloatArray,
    tile: npt.NDArray[np.int64],
    size: npt.NDArray[np.int64],
    start: int,
    stop: int,
    records: FloatArray,
    depth: FloatArray,
    boxes: npt.NDArray[np.int32],
) -> None:
    """Projects columns `start` to `stop` of the splat planes.

    Args:
        planes: [14, N] xyz, scale, quaternion wxyz, log opacity, rgb.
        view: [3, 4]; x_camera = R x + t.
        camera: [3] focal length and principal point in pixels, pixel centres at .5.
        tile: [2] width and height of a tile in pixels.
        size: [2] width and height of the image in pixels.
        start: First column.
        stop: One past the last column.
        records: [N, RECORD], filled.
        depth: [N], filled with metres, or -1 for what cannot be seen.
        boxes: [N], filled with the tile box: bytes x0, x1, y0, y1 from the lowest, inclusive.
    """
    zero = float32(0)
    one = float32(1)
    two = float32(2)
    half = float32(0.5)
    almost = float32(0.99999)
    focal, cx, cy = camera[0], camera[1], camera[2]
    # The limits of the projection's linearisation: 15 % of the image beyond each edge.
    width, height = float32(size[0]), float32(size[1])
    margin_x = float32(0.15) * width / focal
    margin_y = float32(0.15) * height / focal
    left, right = -cx / focal - margin_x, (width - cx) / focal + margin_x
    top, bottom = -cy / focal - margin_y, (height - cy) / focal + margin_y
    edge_x, edge_y = width - one, height - one
    per_tile_x, per_tile_y = one / float32(tile[0]), one / float32(tile[1])
    last_x = float32((size[0] - 1) // tile[0] * tile[0])
    last_y = float32((size[1] - 1) // tile[1] * tile[1])
    r00, r01, r02, t0 = view[0, 0], view[0, 1], view[0, 2], view[0, 3]
    r10, r11, r12, t1 = view[1, 0], view[1, 1], view[1, 2], view[1, 3]
    r20, r21, r22, t2 = view[2, 0], view[2, 1], view[2, 2], view[2, 3]
    # One array for what goes into a chunk and what comes out: with several the compiler would have to guess
    # from their addresses whether they overlap, and would choose slow or differently rounding code at times.
    chunk = np.empty((_OUT + 19, _CHUNK), np.float32)
    for base in range(start, stop, _CHUNK):
        n = min(_CHUNK, stop - base)
        for k in range(_OUT):
            for j in range(n):
                chunk[k, j] = planes[k, base + j]
        for j in range(n):
            x, y, z = chunk[0, j], chunk[1, j], chunk[2, j]
            px = r00 * x + r01 * y + r02 * z + t0
            py = r10 * x + r11 * y + r12 * z + t1
            pz = r20 * x + r21 * y + r22 * z + t2
            qw, qx, qy, qz = chunk[6, j], chunk[7, j], chunk[8, j], chunk[9, j]
            unit = one / math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
            qw *= unit
            qx *= unit
            qy *= unit
            qz *= unit
            sx, sy, sz = chunk[3, j], chunk[4, j], chunk[5, j]
            m00 = (one - two * (qy * qy + qz * qz)) * sx
            m01 = two * (qx * qy - qw * qz) * sy
            m02 = two * (qx * qz + qw * qy) * sz
            m10 = two * (qx * qy + qw * qz) * sx
            m11 = (one - two * (qx * qx + qz * qz)) * sy
            m12 = two * (qy * qz - qw * qx) * sz
            m20 = two * (qx * qz - qw * qy) * sx
            m21 = two * (qy * qz + qw * qx) * sy
            m22 = (one - two * (qx * qx + qy * qy)) * sz
            # J W M: the Jacobian of the projection times the view times rotation and size.
            inverse = one / pz
            tx, ty = px * inverse, py * inverse
            scale = focal * inverse
            slant_x = -scale * min(right, max(left, tx))
            slant_y = -scale * min(bottom, max(top, ty))
            w00 = scale * r00 + slant_x * r20
            w01 = scale * r01 + slant_x * r21
            w02 = scale * r02 + slant_x * r22
            w10 = scale * r10 + slant_y * r20
            w11 = scale * r11 + slant_y * r21
            w12 = scale * r12 + slant_y * r22
            u00 = w00 * m00 + w01 * m10 + w02 * m20
            u01 = w00 * m01 + w01 * m11 + w02 * m21
            u02 = w00 * m02 + w01 * m12 + w02 * m22
            u10 = w10 * m00 + w11 * m10 + w12 * m20
            u11 = w10 * m01 + w11 * m11 + w12 * m21
            u12 = w10 * m02 + w11 * m12 + w12 * m22
            sxx = u00 * u00 + u01 * u01 + u02 * u02 + _DILATION
            sxy = u00 * u10 + u01 * u11 + u02 * u12
            syy = u10 * u10 + u11 * u11 + u12 * u12 + _DILATION
            determinant = sxx * syy - sxy * sxy
            a = syy / determinant
            b = -sxy / determinant
            c = sxx / determinant
            log_opacity = chunk[10, j]
            # Beyond this Mahalanobis distance squared the opacity is below 1/255.
            reach = two * (log_opacity + _LOG_255)
            extent = max(reach, zero)
            gx = focal * tx + cx - half
            gy = focal * ty + cy - half
            half_width = math.sqrt(extent * sxx)
            half_height = math.sqrt(extent * syy)
            chunk[_OUT + 0, j] = gx
            chunk[_OUT + 1, j] = gy
            chunk[_OUT + 2, j] = -half * a
            chunk[_OUT + 3, j] = -b
            chunk[_OUT + 4, j] = -half * c
            chunk[_OUT + 5, j] = log_opacity
            chunk[_OUT + 6, j] = chunk[11, j]
            chunk[_OUT + 7, j] = chunk[12, j]
            chunk[_OUT + 8, j] = chunk[13, j]
            chunk[_OUT + 9, j] = half_width
            chunk[_OUT + 10, j] = half_height
            chunk[_OUT + 11, j] = -b / a
            chunk[_OUT + 12, j] = one / (a * syy)
            chunk[_OUT + 13, j] = sxy / sxx * half_width
            seen = (
                (pz > _NEAR)
                & (reach > zero)
                & (determinant > zero)
                & (gx + half_width >= zero)
                & (gx - half_width <= edge_x)
                & (gy + half_height >= zero)
                & (gy - half_height <= edge_y)
            )
            chunk[_OUT + 14, j] = pz if seen else float32(-1)
            chunk[_OUT + 15, j] = min(last_x, max(zero, gx - half_width + almost)) * per_tile_x
            chunk[_OUT + 16, j] = min(last_x, max(zero, gx + half_width)) * per_tile_x
            chunk[_OUT + 17, j] = min(last_y, max(zero, gy - half_height + almost)) * per_tile_y
            chunk[_OUT + 18, j] = min(last_y, max(zero, gy + half_height)) * per_tile_y
        for j in range(n):
            depth[base + j] = chunk[_OUT + 14, j]
            x0, x1 = int32(chunk[_OUT + 15, j]), int32(chunk[_OUT + 16, j])
            y0, y1 = int32(chunk[_OUT + 17, j]), int32(chunk[_OUT + 18, j])
            boxes[base + j] = x0 | (x1 << int32(8)) | (y0 << int32(16)) | (y1 << int32(24))
        for j in range(n):
            for k in range(14):
                records[base + j, k] = chunk[_OUT + k, j]
