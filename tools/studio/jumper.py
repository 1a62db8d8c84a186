"""The jumper: the torso pushed outwards with folds, cut by a tilted plane, and a ribbed collar on the cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from tools.studio.body import Body
from tools.studio.mesh import Array, cut, grid_quads, neighbour_average, normals, smoothstep, triangles, unit

THICKNESS = 0.075
COLLAR_ACROSS, COLLAR_UP = 0.046, 0.082
"""Half sizes of the collar's section, dm."""


@dataclass(frozen=True)
class Cloth:
    """A mesh of cloth; `angle` [n] runs from 0 to 1 around the collar and is 0 elsewhere."""

    points: Array
    tri: Array
    weights: Array
    angle: Array
    is_collar: bool


def _folds(points: Array, shoulder: float) -> Array:
    """Height of the folds [n]: from the armpits towards the middle of the chest, fading at the collar."""
    x, y = points[:, 0], points[:, 1]
    below = smoothstep(shoulder + 0.15, shoulder - 0.7, y)
    fan = np.abs(x) * 2.2 - (shoulder - y) * 3.0
    pulls = 0.030 * np.sin(fan * 3.1 + 0.5 * np.sin(x * 2.7)) * smoothstep(0.35, 1.1, np.abs(x))
    drape = 0.016 * np.sin(x * 3.1 + y * 5.3) * np.sin(y * 2.3 - x * 2 + 1)
    crease = -0.030 * np.exp(-(((np.abs(x) - 1.05 - 0.25 * (shoulder - y)) / 0.09) ** 2))
    height: Array = (pulls + drape + crease) * below
    return height


def jumper(body: Body) -> tuple[Cloth, Cloth]:
    """The jumper's torso and its collar."""
    surface = body.surface(
        ["body"],
        lambda p: bool(p[:, 1].min() > 3.1 and p[:, 1].max() < 6.0 and np.abs(p[:, 0]).max() < 3.2),
        level=1,
    )
    tri = surface.tri
    points = surface.matrix @ body.vertices
    weights = body.weights(surface.matrix)
    average = neighbour_average(tri, len(points))
    for _ in range(14):
        points = 0.5 * points + 0.5 * (average @ points)
    outward = normals(points.astype(np.float32), tri)
    neck = body.joints["neck"]
    points = points + outward * (THICKNESS + _folds(points, neck[1] - 0.35))[:, None]

    back, front = neck[1] + 0.12, neck[1] - 0.26
    back_z, front_z = -0.45, 0.62
    height = points[:, 1] - (back + (front - back) * (points[:, 2] - back_z) / (front_z - back_z))
    height = np.where(np.abs(points[:, 0]) < 0.85, height, -1.0)
    clipped, kept, edge = cut(np.c_[points, weights], tri, height)
    torso = Cloth(clipped[:, :3], kept, clipped[:, 3:] * 0.6, np.zeros(len(clipped)), is_collar=False)
    return torso, _collar(edge[:, :3], torso)


def _collar(edge: Array, torso: Cloth) -> Cloth:
    """A ribbed roll along the smoothed cut."""
    centre = edge.mean(0)
    around = np.arctan2(edge[:, 0] - centre[0], edge[:, 2] - centre[2])

    def waves(x: Array) -> Array:
        return np.stack([np.ones_like(x)] + [f(k * x) for k in range(1, 6) for f in (np.cos, np.sin)], -1)

    fit, *_ = np.linalg.lstsq(waves(around), edge, rcond=None)
    theta = np.linspace(-np.pi, np.pi, 241)[:-1]
    path = waves(theta) @ fit
    path[:, 1] += 0.004
    path[:, 0] = centre[0] + (path[:, 0] - centre[0]) * 0.975
    out = unit((path - centre) * [1, 0, 1])
    up = unit(np.array([0, 1.0, 0]) - 0.34 * out)
    tangent = unit(np.roll(path, -1, 0) - np.roll(path, 1, 0))
    across = unit(np.cross(up, tangent))
    across *= np.sign((across * out).sum(1))[:, None]
    phi = np.linspace(0, 2 * np.pi, 17)[:-1]

    def power(x: Array, exponent: float) -> Array:
        return np.sign(x) * np.abs(x) ** exponent

    points = (
        path[:, None]
        + COLLAR_ACROSS * power(np.cos(phi), 0.9)[None, :, None] * across[:, None]
        + COLLAR_UP * power(np.sin(phi), 0.8)[None, :, None] * up[:, None]
    )
    rows, columns = points.shape[:2]
    tri = triangles(grid_quads(rows, columns, wrap_rows=True, wrap_columns=True))
    points = points.reshape(-1, 3)
    if ((points - np.repeat(path, columns, 0)) * normals(points.astype(np.float32), tri)).sum() < 0:
        tri = tri[:, ::-1]
    near = torso.weights[cKDTree(torso.points).query(points)[1]] / 0.6
    weights = np.broadcast_to(0.5 * near.mean(0), (len(points), 2))
    angle = np.repeat((theta + np.pi) / (2 * np.pi), columns)
    return Cloth(points, np.ascontiguousarray(tri, np.int32), weights, angle, is_collar=True)
