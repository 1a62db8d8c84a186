"""Inside of the mouth: modelled teeth and gums, and the tongue, which the unit `tongueOut` drives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.studio.body import Body
from tools.studio.mesh import Array, Morph, grid_quads, group_vertices, smoothstep, triangles

UPPER_WIDTHS = (0.086, 0.068, 0.076, 0.070, 0.070)
UPPER_HEIGHTS = (0.102, 0.096, 0.110, 0.116, 0.116)
LOWER_WIDTHS = (0.055, 0.060, 0.068, 0.070, 0.072)
LOWER_HEIGHTS = (0.080, 0.080, 0.086, 0.078, 0.072)
TIP_RISE = 0.08
"""Rise of the tip for a whole unit, dm; the jaw that opens with it takes a part back."""
GUM, BACKING = 1.0, 0.16
"""Values of the gum attribute: 1 is gum, 0 enamel; the backing ribbon hides gaps, slightly tinted."""


@dataclass(frozen=True)
class MouthPart:
    """A mesh inside the mouth; `gum` [n] colours it."""

    rest: Array
    tri: Array
    gum: Array
    morph: Morph


def _superquadric(
    width: float, height: float, depth: float, around: int = 20, rows: int = 13
) -> tuple[Array, Array]:
    """A rounded box with half sizes width, height, depth: points and quads."""
    u, v = np.meshgrid(np.linspace(-np.pi, np.pi, around + 1)[:-1], np.linspace(-np.pi / 2, np.pi / 2, rows))

    def power(x: Array, exponent: float) -> Array:
        return np.sign(x) * np.abs(x) ** exponent

    points = np.stack(
        [
            width * power(np.cos(v), 0.42) * power(np.sin(u), 0.62),
            height * power(np.sin(v), 0.42),
            depth * power(np.cos(v), 0.42) * power(np.cos(u), 0.62),
        ],
        -1,
    )
    return points.reshape(-1, 3), grid_quads(rows, around, wrap_columns=True)


def _tube(path: Array, across: float, along_up: float, around: int = 10) -> tuple[Array, Array]:
    """An ellipse swept along a path [k, 3], upright."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(np.array([0, 1.0, 0]), tangent)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(tangent, side)
    angle = np.linspace(0, 2 * np.pi, around + 1)[:-1]
    points = (
        path[:, None]
        + across * np.cos(angle)[None, :, None] * side[:, None]
        + along_up * np.sin(angle)[None, :, None] * up[:, None]
    )
    return points.reshape(-1, 3), grid_quads(len(path), around, wrap_columns=True)


def _arch(front: float, edge: float, *, upper: bool) -> tuple[Array, Array, Array]:
    """One arch of ten teeth with backing and gum: points, quads, gum attribute.

    Args:
        front: z of the middle incisors.
        edge: y of the biting edge.
        upper: which arch.
    """
    widths, heights = (UPPER_WIDTHS, UPPER_HEIGHTS) if upper else (LOWER_WIDTHS, LOWER_HEIGHTS)
    sign = 1 if upper else -1
    curve = 3.1
    xs = np.linspace(0, 0.6, 600)
    zs = front - curve * xs**2.15
    arc = np.concatenate([[0], np.cumsum(np.hypot(np.diff(xs), np.diff(zs)))])
    points: list[Array] = []
    quads: list[Array] = []
    gum: list[Array] = []
    total = 0

    def append(p: Array, q: Array, value: float) -> None:
        nonlocal total
        points.append(p)
        quads.append(q + total)
        gum.append(np.full(len(p), value))
        total += len(p)

    for side in (1, -1):
        at = 0.0
        for i, (w, h) in enumerate(zip(widths, heights, strict=True)):
            middle = at + w / 2
            at += w + 0.0012
            x, z = np.interp(middle, arc, xs), np.interp(middle, arc, zs)
            ahead, behind = middle + 0.01, middle - 0.01
            along = np.array(
                [
                    np.interp(ahead, arc, xs) - np.interp(behind, arc, xs),
                    np.interp(ahead, arc, zs) - np.interp(behind, arc, zs),
                ]
            )
            along /= np.linalg.norm(along)
            p, q = _superquadric(w / 2 * 1.05, h / 2, 0.030 if i < 3 else 0.05)
            t = p[:, 1] / h + 0.5  # 0 at the biting edge, 1 at the gum
            t = t if upper else 1 - t
            p[:, 0] *= 1 - 0.09 * t**2
            p[:, 2] *= 0.55 + 0.6 * t
            p[:, 2] -= 0.012 * (1 - t) * (1 if upper else -0.3)
            turn = np.array([[along[0], -along[1]], [along[1], along[0]]])
            xz = p[:, [0, 2]] @ turn.T
            centre = edge + sign * (h / 2 + 0.004 * (i == 1) - 0.003 * (i == 2))
            world = np.stack([side * (x + xz[:, 0]), p[:, 1] + centre, z + xz[:, 1]], -1)
            append(world, q if side > 0 else q[:, ::-1], 0.0)
    for half, height, thick, tall, value in (
        (0.27, 0.55, 0.012, heights[0] * 0.42, BACKING),
        (0.30, 1.25, 0.045, 0.075, GUM),
    ):
        across = np.linspace(-half, half, 40)
        level = np.full(40, edge + sign * heights[0] * height)
        path = np.stack([across, level, front - 0.03 - curve * np.abs(across) ** 2.15], -1)
        append(*_tube(path, thick, tall), value)
    return np.concatenate(points), np.concatenate(quads), np.concatenate(gum)


def teeth(body: Body, *, upper: bool, edge: float, front: float) -> MouthPart:
    """Teeth with their gum. The lower arch moves as the source's lower teeth do under the jaw units."""
    points, quads, gum = _arch(front, edge, upper=upper)
    deltas = np.zeros((len(body.units), *points.shape))
    if not upper:
        index = group_vertices(body.groups["helper-lower-teeth"])
        source = np.c_[body.vertices[index], np.ones(len(index))]
        for name in ("jawOpen", "jawForward", "jawLeft", "jawRight"):
            unit_ = body.unit[name]
            affine, *_ = np.linalg.lstsq(source, body.deltas[unit_][index], rcond=None)
            deltas[unit_] = np.c_[points, np.ones(len(points))] @ affine
    return MouthPart(points, triangles(quads), gum, Morph(points, list(deltas)))


def tongue(body: Body, front: float) -> MouthPart:
    """The tongue. `tongueOut` lifts and advances its tip to the upper teeth (0.3) and between them (0.58).

    Args:
        body: the person.
        front: z of the upper incisors.
    """
    surface = body.surface(["helper-tongue"], lambda _: True)
    rest = surface.matrix @ body.vertices + np.array([0, -0.06, -0.05])
    deltas = [surface.matrix @ d for d in body.deltas]
    z0, z1 = rest[:, 2].min(), rest[:, 2].max()
    along = (rest[:, 2] - z0) / (z1 - z0)
    tip = smoothstep(0.30, 1.0, along)[:, None]
    top = rest[along > 0.9].max(0)
    # The driver raises the tip to the teeth with values up to 0.30 and puts it between them up to 0.58.
    reach = np.array([0.0, TIP_RISE, (front - 0.015 - z1) / 0.30])
    flatten = np.zeros_like(rest)
    flatten[:, 1] = -0.35 * (rest[:, 1] - np.interp(along, [0, 1], [rest[:, 1].mean(), top[1] - 0.03]))
    deltas[body.unit["tongueOut"]] = tip * (reach + flatten)
    return MouthPart(rest, surface.tri, np.zeros(len(rest)), Morph(rest, deltas))
