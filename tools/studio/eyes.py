"""Eyes: the turning eyeball, the true edge of the lids, and lashes rooted on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from tools.studio.body import Body
from tools.studio.mesh import Array, Morph, grid_quads, smoothstep, triangles, unit
from tools.studio.strands import Strands, head_weights

LID_COLUMNS = 15
UPPER_LASHES = 96
LOWER_LASHES = 26
LASH_WIDTH = 0.0062


class Eyeball:
    """A sphere with a corneal bulge around its own z axis, turned by the gaze."""

    def __init__(self, body: Body, side: str) -> None:
        points = body.eye_vertices(side)
        self.centre = (points.min(0) + points.max(0)) / 2
        self.radius = float(np.ptp(points[:, 1])) / 2 * 0.995
        self.centre[2] = points[:, 2].max() - self.radius * 1.035
        theta = np.concatenate([np.linspace(0, 0.6, 16), np.linspace(0.66, 1.7, 14)])
        phi = np.linspace(0, 2 * np.pi, 41)[:-1]
        t, f = np.meshgrid(theta, phi, indexing="ij")
        self.local = np.stack([np.sin(t) * np.cos(f), np.sin(t) * np.sin(f), np.cos(t)], -1).reshape(-1, 3)
        self._shape = self.local * (1 + 0.075 * np.exp(-((t.reshape(-1, 1) / 0.33) ** 2)))
        # Rows go from the front to the back: outward faces need the columns reversed.
        self.tri = triangles(grid_quads(len(theta), len(phi), wrap_columns=True)[:, ::-1])
        self.gaze = (0.0, 0.0)
        """Degrees: yaw to her left, pitch up, relative to the head."""

    def __call__(self, _units: Array) -> Array:
        """Positions [n, 3] float32 for the present gaze."""
        yaw, pitch = np.radians(self.gaze[0]), -np.radians(self.gaze[1])
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        tilt = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        points: Array = (self.centre + self.radius * self._shape @ (turn @ tilt).T).astype(np.float32)
        return points


def lid_edge(body: Body, side: str, matrix: Any, *, upper: bool) -> Any:
    """The lid edge as a matrix [15, source vertices], from the inner to the outer end in x.

    In each column of skin vertices before the eye the largest vertical gap is the opening between the lids.
    """
    points = body.eye_vertices(side)
    centre, radius = (points.min(0) + points.max(0)) / 2, np.ptp(points[:, 1]) / 2
    skin = matrix @ body.vertices
    near = np.where(
        (np.abs(skin[:, 0] - centre[0]) < 0.24)
        & (np.abs(skin[:, 1] - centre[1]) < 0.16)
        & (skin[:, 2] > centre[2] - 0.02)
        & (np.linalg.norm(skin - centre, axis=1) > radius * 0.98)
    )[0]
    found: list[int] = []
    for x in np.linspace(centre[0] - 0.19, centre[0] + 0.19, 4 * LID_COLUMNS):
        column = near[np.abs(skin[near, 0] - x) < 0.014]
        if len(column) < 4:
            continue
        column = column[np.argsort(skin[column, 1])]
        gaps = np.diff(skin[column, 1])
        k = int(np.argmax(gaps))
        if gaps[k] > 0.022:
            found.append(int(column[k + 1] if upper else column[k]))
    pick = np.array(list(dict.fromkeys(found)))
    pick = pick[np.argsort(skin[pick, 0])]
    pick = _unbroken(skin[pick], pick, centre[0])
    x = skin[pick, 0]
    columns = np.linspace(x.min(), x.max(), LID_COLUMNS)
    smooth = np.exp(-(((columns[:, None] - x[None]) / 0.022) ** 2))
    smooth /= smooth.sum(1, keepdims=True)
    return sp.csr_matrix(smooth) @ matrix[pick]


def _unbroken(points: Array, pick: Array, middle: float) -> Array:
    """The run of edge vertices around the middle, up to the first jump in height on either side."""
    low = high = int(np.argmin(np.abs(points[:, 0] - middle)))

    def joined(i: int, j: int) -> bool:
        step = np.abs(points[i] - points[j])
        return bool(step[1] < 0.012 + 0.75 * step[0])

    while low > 0 and joined(low, low - 1):
        low -= 1
    while high < len(pick) - 1 and joined(high, high + 1):
        high += 1
    return pick[low : high + 1]


def lashes(body: Body, side: str, edge: Any, *, upper: bool, seed: int) -> Strands:
    """Lashes on a lid edge; the upper ones fold down with the blink."""
    rng = np.random.default_rng(seed)
    sign = 1 if side == "l" else -1
    n, k = (UPPER_LASHES if upper else LOWER_LASHES), 6
    points = body.eye_vertices(side)
    centre = (points.min(0) + points.max(0)) / 2
    # Evenly spread with jitter: random clumps look like eyeliner.
    outer = (np.arange(n) + rng.uniform(0.1, 0.9, n)) / n
    outer = 0.02 + 0.98 * outer if upper else 0.35 + 0.63 * outer
    t = outer if sign > 0 else 1 - outer
    at = t * (edge.shape[0] - 1)
    below = np.minimum(at.astype(int), edge.shape[0] - 2)
    share = at - below
    row = np.arange(n)
    matrix = (
        sp.csr_matrix(
            (np.r_[1 - share, share], (np.r_[row, row], np.r_[below, below + 1])), (n, edge.shape[0])
        )
        @ edge
    )
    root = matrix @ body.vertices
    outward = unit(root - centre)
    u = np.linspace(0, 1, k)[None, :, None]
    fan = sign * (outer - 0.42) * 0.9 + rng.normal(0, 0.08, n)
    length = 0.032 + 0.028 * smoothstep(0.25, 0.9, outer) if upper else 0.018 + 0.012 * outer
    length = length * rng.uniform(0.75, 1.1, n)

    def curl(start_y: float, end_x: float, end_y: float, end_z: float) -> Array:
        start = unit(np.stack([fan * 0.6, np.full(n, start_y), np.ones(n)], -1))
        end = unit(np.stack([fan * end_x, np.full(n, end_y), np.full(n, end_z)], -1))
        path: Array = length[:, None, None] * (
            u * start[:, None] * (1 - 0.5 * u) + u * u * 0.62 * end[:, None]
        )
        return path

    opened = curl(0.18, 1.0, 1.25, 0.35) if upper else curl(-0.18, 1.0, -0.9, 0.35)
    closed = curl(-0.75, 1.0, -0.1, 0.8) if upper else opened
    rest = (root[:, None] + opened + outward[:, None] * 0.003).reshape(-1, 3)
    deltas = [np.repeat(matrix @ d, k, 0) for d in body.deltas]
    blink = body.unit["eyeBlinkLeft" if side == "l" else "eyeBlinkRight"]
    deltas[blink] = deltas[blink] + (closed - opened).reshape(-1, 3)
    fade = np.broadcast_to(1 - 0.75 * u[..., 0] ** 2, (n, k))
    return Strands(
        points=rest.reshape(n, k, 3),
        shell=np.broadcast_to(np.array([0, 0.3, 1.0]), (n, k, 3)),
        tone=np.full((n, k), 0.25),
        occlusion=np.ones((n, k)),
        alpha=fade * (0.78 if upper else 0.34),
        width=np.broadcast_to(LASH_WIDTH * (1 - 0.7 * u[..., 0]), (n, k)),
        weights=head_weights((n, k)),
        morph=Morph(rest, deltas),
    )
