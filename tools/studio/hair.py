"""Hair: a wavy, side-parted bob that covers the ears and ends at the jaw; all of it moves with the head.

A strand leaves the scalp, sweeps over the skull on a great circle to the side of the head, and falls from
there in cylindrical coordinates with a wave and a turn inwards. Strands are drawn towards the nearest of a
few guides, which makes locks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from tools.studio.mesh import Array, normals, smoothstep, unit
from tools.studio.strands import Strands, head_weights

HAIRLINE_AZIMUTH = np.array([0, 14, 26, 38, 48, 57, 66, 73, 79, 86, 94, 106, 120, 150, 180.0])
HAIRLINE_HEIGHT = np.array(
    [0.610, 0.616, 0.610, 0.560, 0.475, 0.372, 0.215, 0.050, -0.05, 0.08, 0.10, -0.04, -0.34, -0.62, -0.66]
)
"""The hairline over the height of the eyes (dm) against the azimuth from the front (degrees)."""

PART_X = 0.25
"""Where the parting starts on the forehead: towards her left."""
SWEEP_POINTS, FALL_POINTS = 14, 12
GUIDES = 190
CLEARANCE = 0.030
"""Strands keep this distance from the skin once they fall, dm."""
BOB_LENGTH = 1.10
"""End of the hair below the eyes, dm."""
FALL_AXIS_Z = 0.15
FACE_HALF_WIDTH = (0.575, 0.565, 0.575, 0.43, 0.0)
"""Half the width of the face that stays free of hair, from below the chin to the forehead, dm."""


@dataclass(frozen=True)
class Paths:
    """Strand paths before they get a look: points, shell normals, layer 0 inner to 1 outer."""

    points: Array
    shell: Array
    layer: Array
    root: Array


class Hair:
    """Grows strands on a scalp given by skin points [n, 3] and triangles."""

    def __init__(self, skin: Array, tri: Array, eye_height: float) -> None:
        self.skin, self.tri, self.eye = skin, tri, eye_height
        self.centre = np.array([0, eye_height + 0.22, 0.30])
        ear = (np.abs(skin[:, 0]) > 0.62) & (skin[:, 1] < eye_height + 0.08) & (skin[:, 2] < 0.75)
        skull = (skin[:, 1] > eye_height - 0.75) & ~ear & (skin[:, 2] < 1.2)
        self._skull = cKDTree(unit(skin[skull] - self.centre))
        self._skull_radius = np.linalg.norm(skin[skull] - self.centre, axis=1)
        self._skin = cKDTree(skin)
        self._outward = normals(skin.astype(np.float32), tri).astype(float)

    def radius(self, direction: Array) -> Array:
        """Smoothed distance of the skull from the centre in unit directions [..., 3]."""
        distance, near = self._skull.query(direction.reshape(-1, 3), k=48)
        weight = np.exp(-((distance / 0.15) ** 2)) + 1e-9
        mean: Array = (self._skull_radius[near] * weight).sum(1) / weight.sum(1)
        return mean.reshape(direction.shape[:-1])

    def above_hairline(self, points: Array) -> Array:
        """Signed height over the hairline, dm."""
        azimuth = np.degrees(np.arctan2(np.abs(points[..., 0]), points[..., 2] - self.centre[2]))
        height = np.interp(azimuth, HAIRLINE_AZIMUTH, HAIRLINE_HEIGHT)
        wobble = 0.018 * np.sin(points[..., 0] * 23 + 1.0) + 0.012 * np.sin(
            points[..., 0] * 51 + points[..., 1] * 17
        )
        above: Array = points[..., 1] - (self.eye + height + wobble * (azimuth < 70))
        return above

    def _behind_ear(self, points: Array) -> Array:
        return (
            (np.abs(points[:, 0]) > 0.64)
            & (points[:, 1] < self.eye + 0.05)
            & (points[:, 2] < 0.62)
            & (points[:, 2] > -0.02)
        )

    def scalp_shade(self) -> Array:
        """How much the hair darkens each skin point, 0 to 1."""
        shade = smoothstep(-0.02, 0.10, self.above_hairline(self.skin)) * (self.skin[:, 1] > self.eye - 0.6)
        return 0.92 * shade * ~self._behind_ear(self.skin)

    def _roots(self, rng: np.random.Generator, n: int, *, edge: bool) -> Array:
        """Random roots on the scalp; `edge` keeps them near the hairline."""
        corner = self.skin[self.tri]
        middle = corner.mean(1)
        height = self.above_hairline(middle)
        across = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        area = np.linalg.norm(across, axis=1) / 2
        good = (height > -0.12) & ((across * (middle - self.centre)).sum(1) > 0)
        good &= (middle[:, 1] > self.eye - 0.6) & ~self._behind_ear(middle)
        index = np.where(good)[0]
        at_part = np.exp(-(((middle[index, 0] - PART_X) / 0.10) ** 2)) * (middle[index, 2] > 0.2)
        weight = area[index] * np.where(height[index] < 0.18, 1.6, 1.0) * (1 + 2.0 * at_part)
        if edge:
            weight = weight * np.where(height[index] < 0.20, 1.0, 0.02) * (middle[index, 2] > 0.1)
        chosen = rng.choice(index, 3 * n, p=weight / weight.sum())
        u, v = np.sqrt(rng.random(3 * n)), rng.random(3 * n)
        root = (
            corner[chosen, 0] * (1 - u)[:, None]
            + corner[chosen, 1] * (u * (1 - v))[:, None]
            + corner[chosen, 2] * (u * v)[:, None]
        )
        lowest = 0.03 * rng.random(3 * n) ** 2 if edge else 0.04 + 0.06 * rng.random(3 * n)
        grown: Array = root[self.above_hairline(root) > lowest][:n]
        return grown

    def _side(self, rng: np.random.Generator, root: Array) -> Array:
        """+1 where a strand falls to her left, -1 to her right; the parting dissolves on the crown."""
        front = smoothstep(0.25, 0.78, root[:, 2])
        line = PART_X * front + 0.018 * np.sin(root[:, 2] * 21)
        return np.where(
            root[:, 0] - line > rng.normal(0, 1, len(root)) * (0.006 + 0.10 * (1 - front)), 1.0, -1.0
        )

    def _grow(self, rng: np.random.Generator, root: Array) -> Paths:
        """Paths of single strands, before they gather into locks."""
        n = len(root)
        side = self._side(rng, root)
        layer = rng.random(n) ** 0.7
        start = unit(root - self.centre)
        azimuth = np.arctan2(np.abs(root[:, 0]), root[:, 2] - self.centre[2])
        elevation = np.arcsin(start[:, 1])
        back = np.clip((0.95 - root[:, 2]) / 1.75, 0, 1)
        end_azimuth = np.radians(57 + 118 * back**0.9) + rng.normal(0, 0.05, n)
        end_elevation = np.radians(-9 - 3 * back) + rng.normal(0, 0.035, n)
        low = elevation < end_elevation + 0.12
        end_azimuth = np.where(low, azimuth, end_azimuth)
        end_elevation = np.where(low, elevation - 0.15, end_elevation)
        end = np.stack(
            [
                side * np.cos(end_elevation) * np.sin(end_azimuth),
                np.sin(end_elevation),
                np.cos(end_elevation) * np.cos(end_azimuth),
            ],
            -1,
        )
        angle = np.arccos(np.clip((start * end).sum(1), -1, 1))[:, None] + 1e-4
        t = np.linspace(0, 1, SWEEP_POINTS)[None]
        sweep = (
            np.sin((1 - t) * angle)[..., None] * start[:, None] + np.sin(t * angle)[..., None] * end[:, None]
        ) / np.sin(angle)[..., None]
        # The fringe rises off the forehead before it falls to the side.
        frontal = smoothstep(0.45, 1.0, root[:, 2])[:, None]
        bow = (4 * t * (1 - t)) ** 0.8 * frontal
        sweep = unit(sweep + bow[..., None] * np.array([0, 0.13, -0.16]))
        rise = 1 - np.exp(-t * angle * self.radius(start)[:, None] / 0.10)
        rooted = smoothstep(0.80, 0.40, root[:, 2])[:, None]
        rise = rise * (1 - 0.75 * rooted) + 0.75 * rooted
        volume = 0.10 + 0.10 * smoothstep(0.0, 0.8, sweep[..., 1])
        height = 0.006 + volume * rise * (0.30 + 0.70 * layer)[:, None]
        points = self.centre + sweep * (self.radius(sweep) + height)[..., None]

        fall, fall_shell = self._fall(rng, points[:, -1], sweep[:, -1], layer)
        return Paths(np.concatenate([points, fall], 1), np.concatenate([sweep, fall_shell], 1), layer, root)

    def _fall(
        self, rng: np.random.Generator, start: Array, start_shell: Array, layer: Array
    ) -> tuple[Array, Array]:
        """The part of each strand that hangs from `start` [n, 3], and its shell."""
        n = len(start)
        a = np.linspace(0, 1, FALL_POINTS + 1)[None, 1:]
        x, z = start[:, 0], start[:, 2] - FALL_AXIS_Z
        azimuth = np.arctan2(np.abs(x), z)
        side = np.where(x > 0, 1.0, -1.0)
        radius = np.hypot(x, z)
        forward = np.clip(np.cos(azimuth), -1, 1)
        bottom = self.eye - BOB_LENGTH + 0.06 * forward - 0.16 * (layer - 0.5) + rng.normal(0, 0.035, n)
        end_radius = 0.62 + 0.26 * layer + 0.04 * np.abs(np.sin(azimuth)) - 0.06 * (forward < -0.3)
        y = start[:, 1, None] + (np.minimum(bottom, start[:, 1] - 0.15) - start[:, 1])[:, None] * a
        ease = a * a * (3 - 2 * a)
        r = radius[:, None] + (end_radius - radius)[:, None] * ease
        r = r + 0.055 * np.sin(np.pi * np.clip(a * 1.1, 0, 1)) - 0.07 * smoothstep(0.72, 1.0, a)
        phi = azimuth[:, None] + np.maximum(0, np.radians(70) - azimuth)[:, None] * ease
        wave = rng.normal(0, 0.25, n)[:, None] + 5.0 * azimuth[:, None] + 2 * np.pi * 1.9 * a
        grow = a**0.8
        r = r + 0.034 * np.sin(wave) * grow
        phi = phi + 0.060 * np.cos(wave + 0.6) * grow
        points = np.stack([side[:, None] * r * np.sin(phi), y, FALL_AXIS_Z + r * np.cos(phi)], -1)
        shell = unit(
            np.stack(
                [side[:, None] * np.sin(phi), 0.10 - 0.25 * smoothstep(0.7, 1, a) + 0 * phi, np.cos(phi)], -1
            )
        )
        # The light must not jump where the sweep turns into the fall.
        turned = smoothstep(0.0, 0.55, a)[..., None]
        return points, unit(start_shell[:, None] * (1 - turned) + shell * turned)

    def _gather(self, rng: np.random.Generator, paths: Paths, guides: Paths) -> tuple[Paths, Array]:
        """Pull strands towards their guide along the way; returns them and the number of each one's guide."""

        def feature(p: Paths) -> Array:
            # Root and both ends: strands of one lock run together everywhere.
            return np.concatenate([p.root, 0.8 * p.points[:, SWEEP_POINTS], 0.8 * p.points[:, -1]], 1)

        _, lock = cKDTree(feature(guides)).query(feature(paths) + rng.normal(0, 0.03, (len(paths.root), 9)))
        k = paths.points.shape[1]
        pull = 0.62 * smoothstep(0.12, 1.0, np.linspace(0, 1, k)) ** 0.9
        target = guides.points[lock]
        points = paths.points + (target - paths.points) * pull[None, :, None]
        # Each lock is lit like a soft roll of its own.
        shell = unit(paths.shell + np.clip((points - target) / 0.10, -1, 1) * 0.35)
        return Paths(points, shell, paths.layer, paths.root), lock

    def _clear_of_skin(self, points: Array) -> Array:
        """Push points of the falling part out of the skin."""
        out = points.copy()
        fall = out[:, SWEEP_POINTS - 4 :].reshape(-1, 3)
        for _ in range(2):
            distance, near = self._skin.query(fall)
            depth = ((fall - self.skin[near]) * self._outward[near]).sum(1)
            push = np.where((depth < CLEARANCE) & (distance < 0.35), CLEARANCE - depth, 0.0)
            fall = fall + self._outward[near] * push[:, None]
        out[:, SWEEP_POINTS - 4 :] = fall.reshape(len(points), -1, 3)
        return out

    def _off_the_face(self, points: Array) -> Array:
        """Strands moved sideways where they would cover eyes and cheeks."""
        x, y, z = points[..., 0], points[..., 1] - self.eye, points[..., 2]
        free = np.interp(y, [-1.3, -0.6, 0.1, 0.45, 0.62], FACE_HALF_WIDTH) * smoothstep(0.30, 0.55, z)
        # A soft maximum, so that strands slide along the border instead of piling up on it.
        wide = free + np.logaddexp(0, (np.abs(x) - free) / 0.03) * 0.03
        return np.stack([np.where(x > 0, wide, -wide), points[..., 1], z], -1)

    def strands(self, n: int, seed: int, *, edge: bool = False) -> Strands:
        """The body of the hair; `edge` grows finer strands along the hairline."""
        rng = np.random.default_rng(seed)
        guides = self._grow(
            np.random.default_rng(71), self._roots(np.random.default_rng(70), GUIDES, edge=False)
        )
        paths, lock = self._gather(rng, self._grow(rng, self._roots(rng, n, edge=edge)), guides)
        points = paths.points.copy()
        points[:, 5:] = self._off_the_face(points[:, 5:])
        paths = Paths(self._clear_of_skin(points), paths.shell, paths.layer, paths.root)
        return self._look(rng, paths, lock, fine=edge)

    def _look(self, rng: np.random.Generator, paths: Paths, lock: Array, *, fine: bool) -> Strands:
        n, k = paths.points.shape[:2]
        u = np.linspace(0, 1, k)[None]
        of_lock = np.random.default_rng(5).normal(size=GUIDES)[lock]
        tone = np.clip(0.44 + 0.15 * of_lock + rng.normal(0, 0.15, n), 0, 1)[:, None] + 0.16 * (u - 0.4)
        shell = paths.shell
        facing = 0.30 + 0.70 * smoothstep(-0.35, 0.30, shell[..., 2])
        under = 0.55 + 0.45 * smoothstep(
            -0.9, 0.1, paths.points[..., 1] - self.eye + 0.4 * (paths.layer[:, None] > 0.5)
        )
        occlusion = (0.42 + 0.58 * paths.layer)[:, None] * facing * under
        taper = smoothstep(1.0, 0.80, u) * 0.85 + 0.15
        start = np.minimum(1, 0.45 + 4 * u)
        alpha = np.ones((n, k))
        if fine:
            alpha = np.clip(smoothstep(-0.01, 0.14, self.above_hairline(paths.root))[:, None] + 6 * u, 0, 1)
        return Strands(
            points=paths.points,
            shell=shell,
            tone=np.clip(tone, 0, 1),
            occlusion=occlusion,
            alpha=alpha,
            width=(0.0075 if fine else 0.0125) * taper * start * np.ones((n, 1)),
            weights=head_weights((n, k)),
        )

    def flyaways(self, n: int, seed: int) -> Strands:
        """A few soft loose hairs outside the silhouette; faint, so that nothing flickers."""
        base = self.strands(n, seed)
        rng = np.random.default_rng(seed + 1)
        m, k = base.points.shape[:2]
        u = np.linspace(0, 1, k)[None, :, None]
        lift = rng.uniform(0.015, 0.055, (m, 1, 1)) * np.sin(np.pi * np.minimum(1, u * 1.1))
        sway = 0.012 * np.sin(u * rng.uniform(6, 12, (m, 1, 1)) + rng.uniform(0, 6, (m, 1, 1))) * u
        fade = smoothstep(0.0, 0.2, u[..., 0]) * smoothstep(1.0, 0.6, u[..., 0])
        return Strands(
            points=base.points + base.shell * (lift + sway),
            shell=base.shell,
            tone=np.clip(base.tone + 0.1, 0, 1),
            occlusion=np.maximum(base.occlusion, 0.7),
            alpha=0.42 * fade * np.ones((m, 1)),
            width=np.full((m, k), 0.006),
            weights=base.weights,
        )

    def hairline_down(self, n: int, seed: int) -> Strands:
        """Short fine hairs that soften the hairline."""
        rng = np.random.default_rng(seed)
        root = self._roots(rng, n, edge=True)
        root = root[self.above_hairline(root) < 0.06]
        base = self._grow(rng, root)
        m, k = len(root), 6
        t = np.linspace(0, 1, k)[None]
        length = rng.uniform(0.10, 0.22, m)[:, None] * t
        ahead = unit(base.points[:, 3] - base.points[:, 0])
        start = unit(root - self.centre)
        ahead = unit(ahead - 0.85 * (ahead * start).sum(1, keepdims=True) * start)
        points = root[:, None] + ahead[:, None] * length[..., None]
        points = points + start[:, None] * (0.004 + 0.10 * length[..., None] ** 1.5)
        return Strands(
            points=points,
            shell=np.broadcast_to(start[:, None], (m, k, 3)),
            tone=np.repeat(rng.uniform(0.5, 1.0, (m, 1)), k, 1),
            occlusion=np.full((m, k), 0.9),
            alpha=0.24 * (1 - t**2) * np.ones((m, 1)),
            width=np.full((m, k), 0.0055),
            weights=head_weights((m, k)),
        )

    def cap(self) -> tuple[Array, Array]:
        """A closed layer of hair on the scalp for shadows and occlusion: points and triangles."""
        height = self.above_hairline(self.skin)
        good = (height > 0.16) & ~self._behind_ear(self.skin) & (self.skin[:, 1] > self.eye - 0.5)
        tri = self.tri[good[self.tri].all(1)]
        index = np.unique(tri)
        place = np.full(len(self.skin), -1)
        place[index] = np.arange(len(index))
        outward = unit(self.skin[index] - self.centre)
        return self.skin[index] + 0.05 * outward, place[tri].astype(np.int32)
