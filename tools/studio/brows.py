"""Brows: fine strands whose every point is bound to the skin, so that they follow the face units."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from tools.studio.body import Body
from tools.studio.mesh import Array, Morph, bind_points, normals, smoothstep, unit
from tools.studio.strands import Strands, head_weights

STRANDS_PER_BROW = 520
INNER = 0.175
"""Distance of the inner end from the eye centre towards the nose, dm; also in shaders/bake.frag."""
LENGTH = 0.43


def brow_line(t: Array) -> Array:
    """Height of the brow's middle over the eye centre for t from 0 (inner) to 1 (outer), dm."""
    return 0.162 + 0.055 * np.sin(np.pi * np.clip(t * 0.80 + 0.04, 0, 1)) - 0.11 * np.clip(t - 0.60, 0, 1)


def brow_half_width(t: Array) -> Array:
    """Half the thickness of the brow, dm."""
    return 0.041 * (1 - 0.80 * t**1.6) * smoothstep(-0.10, 0.16, t)


def brows(body: Body, matrix: Any, tri: Array, seed: int = 3) -> Strands:
    """Both brows on the skin that `matrix` makes."""
    rng = np.random.default_rng(seed)
    skin = matrix @ body.vertices
    front = skin[:, 2] > 0.7
    front_tri = tri[front[tri].all(1)]
    plane = cKDTree(skin[front][:, :2])
    n, k = STRANDS_PER_BROW, 5
    u = np.linspace(0, 1, k)
    t = rng.beta(1.05, 1.12, n)
    v = rng.uniform(-1, 1, n)
    rise = np.where(t < 0.18, 1.15 - 2.9 * t, 0.50 - 0.85 * t) - v * 0.30 + rng.normal(0, 0.10, n)
    length = (0.052 + 0.028 * rng.random(n)) * (1 - 0.35 * t)
    along = unit(np.stack([np.ones(n), rise], -1))
    # Both brows are mirror images with a tremble of their own.
    points = []
    for side, sign in (("l", 1), ("r", -1)):
        eye = body.joints[f"{side}-eye"]
        x = abs(eye[0]) - INNER + t * LENGTH
        y = eye[1] + brow_line(t) + v * brow_half_width(t) + rng.normal(0, 0.0025, n)
        xy = np.stack([x, y], -1)[:, None] + along[:, None] * (length[:, None] * u)[..., None]
        xy[..., 0] *= sign
        xy[..., 1] -= (length[:, None] * u**2) * 0.16
        _, near = plane.query(xy.reshape(-1, 2), k=3)
        z = skin[front][near][:, :, 2].mean(1).reshape(n, k)
        points.append(np.concatenate([xy, z[..., None]], -1))
    path = np.concatenate(points)
    bound = bind_points(path.reshape(-1, 3), skin, front_tri) @ matrix
    path = (bound @ body.vertices).reshape(path.shape)
    _, near = cKDTree(skin).query(path.reshape(-1, 3))
    outward = normals(skin.astype(np.float32), tri)[near].reshape(path.shape)
    rest = path + outward * (0.004 + 0.008 * u[None, :, None])
    shape = rest.shape[:2]
    soft = (0.62 * (1 - 0.55 * np.abs(v) ** 2) * smoothstep(-0.04, 0.26, t))[:, None] * (1 - 0.75 * u**2)
    return Strands(
        points=rest,
        shell=outward,
        tone=np.broadcast_to(rng.random((shape[0], 1)), shape),
        occlusion=np.ones(shape),
        alpha=np.tile(soft, (2, 1)),
        width=np.broadcast_to(0.0085 * (1 - 0.55 * u), shape),
        weights=head_weights(shape),
        morph=Morph(rest.reshape(-1, 3), [bound @ d for d in body.deltas]),
    )
