"""Ambient occlusion at vertices, from many orthographic depth maps."""

from __future__ import annotations

import numpy as np

from tools.studio.mesh import Array, normals, unit
from tools.studio.renderer import SHADOW_SIZE, Renderer

DIRECTIONS = 96
CENTRE = np.array([0, 6.2, 0.4])
HALF_WIDTH, HALF_DEPTH = 2.3, 4.0
BIAS = 0.0030
STRAND_SHARE, STRAND_WIDENING = 0.12, 7.0
"""Few strands drawn wide shade as many thin ones do, in a fraction of the time."""


def occlusion(renderer: Renderer, names: tuple[str, ...], units: Array) -> dict[str, Array]:
    """Cosine-weighted share of the sky that each vertex of the named meshes sees in a face pose, [n] each."""
    rng = np.random.default_rng(1)
    directions = unit(rng.normal(size=(DIRECTIONS, 3)))
    # Nothing lights her from straight below.
    directions[:, 1] = np.where(directions[:, 1] < -0.6, -directions[:, 1], directions[:, 1])
    renderer.upload(units)
    at = {name: renderer.meshes[name].now for name in names}
    outward = {name: normals(points, renderer.meshes[name].part.tri) for name, points in at.items()}
    seen = {name: np.zeros(len(points)) for name, points in at.items()}
    total = {name: np.full(len(points), 1e-6) for name, points in at.items()}
    still = np.stack([np.eye(4)] * 3)
    for direction in directions:
        x = unit(np.cross([0.01, 1, 0.02], direction))
        look = np.eye(4)
        look[:3, :3] = np.stack([x, np.cross(direction, x), direction])
        look[:3, 3] = -look[:3, :3] @ CENTRE
        view = np.diag([1 / HALF_WIDTH, 1 / HALF_WIDTH, -1 / HALF_DEPTH, 1]) @ look
        depth = renderer.orthographic_depth(view, still, widen=STRAND_WIDENING, share=STRAND_SHARE)
        for name, points in at.items():
            q = points @ view[:3, :3].T + view[:3, 3]
            pixel = np.clip(((q[:, :2] * 0.5 + 0.5) * SHADOW_SIZE).astype(int), 0, SHADOW_SIZE - 1)
            visible = depth[pixel[:, 1], pixel[:, 0]] > q[:, 2] * 0.5 + 0.5 - BIAS
            cosine = np.maximum(0, outward[name] @ direction)
            seen[name] += cosine * visible
            total[name] += cosine
    return {name: seen[name] / total[name] for name in names}
