"""The body: base mesh with the identity applied, face units, skin weights, and meshes cut out of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from tools.studio.identity import Recipe
from tools.studio.mesh import (
    Array,
    Morph,
    catmull_clark,
    group_vertices,
    read_obj,
    read_target,
    triangles,
)
from tools.studio.sources import Sources

ARM_BONES = ("upperarm", "lowerarm", "wrist", "finger", "metacarpal")
BODY_BONES = ("spine", "clavicle", "shoulder", "breast", *ARM_BONES)
ARM_DROP_DEGREES = 27.0
"""The source stands with its arms out; shoulders look natural when they hang."""

LIPS_HEIGHT, LIPS_TOUCH = 6.62, 0.001
"""Where the source's lips meet, and the gap that counts as closed, dm."""


@dataclass(frozen=True)
class Surface:
    """A mesh cut out of the body: `matrix` [n, source vertices] makes its vertices."""

    matrix: Any
    tri: Array
    uv: Array
    quads: Array


class Body:
    """Source vertices of one person with everything that is linear in them.

    Attributes:
        units: names of the 52 face units; `unit[name]` is the index.
        vertices: [n, 3] rest positions.
        deltas: [52, n, 3] offsets of the face units.
        joints: joint name -> position [3].
        head_weight, neck_weight: [n] skin weights; what is missing to one follows the body.
    """

    def __init__(self, sources: Sources, recipe: Recipe) -> None:
        self.sources = sources
        vertices, self._uv, self.groups = read_obj(sources.base_mesh)
        n = len(vertices)
        source = vertices
        for name, weight in recipe:
            vertices = vertices + weight * read_target(sources.target(name), n)
        paths = sorted(sources.unit_targets.glob("*.target"))
        self.units = tuple(path.stem for path in paths)
        self.unit = {name: i for i, name in enumerate(self.units)}
        self.deltas = np.stack([read_target(path, n) for path in paths])
        self.joints = {
            name.removeprefix("joint-"): vertices[group_vertices(faces)].mean(0)
            for name, faces in self.groups.items()
            if name.startswith("joint")
        }
        self.vertices = vertices + self._closed_lips(source, vertices)
        self._weigh(json.loads(sources.skin_weights.read_text(encoding="utf-8"))["weights"])

    def _closed_lips(self, source: Array, vertices: Array) -> Array:
        """Offsets [n, 3] that close the slit which the lips have at rest, most of all at the corners.

        Args:
            source: [n, 3] vertices before the identity; its upper and lower lip nearly touch.
            vertices: [n, 3] with the identity.
        """
        jaw = self.deltas[self.unit["jawOpen"]][:, 1]
        skin = group_vertices(self.groups["body"])
        x, y, z = source[skin].T
        lips = skin[(np.abs(x) < 0.30) & (np.abs(y - LIPS_HEIGHT) < 0.17) & (z > 1.15)]
        upper, lower = lips[jaw[lips] > -0.12], lips[jaw[lips] < -0.17]
        distance, near = cKDTree(source[lower]).query(source[upper])
        touching = distance < 0.03
        upper, lower = upper[touching], lower[near[touching]]
        slit = np.maximum(0, vertices[upper, 1] - vertices[lower, 1] - LIPS_TOUCH)
        offsets = np.zeros_like(vertices)
        for side, sign in ((upper, -0.5), (lower, 0.5)):
            own = lips[(jaw[lips] > -0.145) == (sign < 0)]
            away = np.linalg.norm(vertices[own, None] - vertices[side][None], axis=-1)
            weight = np.exp(-((away / 0.035) ** 2))
            offsets[own, 1] = sign * (weight @ slit) / np.maximum(weight.sum(1), 1)
        return offsets

    def _weigh(self, weights: dict[str, list[tuple[int, float]]]) -> None:
        n = len(self.vertices)
        neck, body = np.zeros(n), np.zeros(n)
        arms = {"L": np.zeros(n), "R": np.zeros(n)}
        for bone, pairs in weights.items():
            if not pairs:
                continue
            index = np.array([p[0] for p in pairs], int)
            weight = np.array([p[1] for p in pairs])
            if bone.startswith("neck"):
                neck[index] += weight
            elif bone.startswith(BODY_BONES):
                body[index] += weight
            if bone.startswith(ARM_BONES):
                arms[bone[-1]][index] += weight
            if bone.startswith("shoulder"):
                arms[bone[-1]][index] += 0.25 * weight
        self.neck_weight = neck
        self.head_weight = np.clip(1 - neck - body, 0, 1)
        for side, sign in (("L", 1), ("R", -1)):
            angle = -sign * np.radians(ARM_DROP_DEGREES)
            centre = self.joints[f"{side.lower()}-shoulder"]
            c, s = np.cos(angle), np.sin(angle)
            turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
            relative = self.vertices - centre
            self.vertices = self.vertices + arms[side][:, None] * (relative @ turn.T - relative)

    def surface(self, groups: Sequence[str], keep: Callable[[Array], bool], level: int = 1) -> Surface:
        """Cut the polygons of `groups` whose corner positions satisfy `keep`, subdivided `level` times."""
        faces = [f for g in groups for f in self.groups[g] if keep(self.vertices[[v for v, _ in f]])]
        ids = group_vertices(faces)
        place = {int(v): k for k, v in enumerate(ids)}
        quads = np.array([[place[v] for v, _ in (f if len(f) == 4 else [*f, f[0]])] for f in faces])
        uv, count = np.zeros((len(ids), 2)), np.zeros(len(ids))
        for face in faces:
            for vertex, coordinate in face:
                uv[place[vertex]] += self._uv[coordinate]
                count[place[vertex]] += 1
        pick = sp.csr_matrix((np.ones(len(ids)), (np.arange(len(ids)), ids)), (len(ids), len(self.vertices)))
        divide = sp.identity(len(ids)).tocsr()
        for _ in range(level):
            quads, step = catmull_clark(quads, divide.shape[0])
            divide = (step @ divide).tocsr()
        return Surface((divide @ pick).tocsr(), triangles(quads), divide @ (uv / count[:, None]), quads)

    def weights(self, matrix: Any) -> Array:
        """(head, neck) skin weights [k, 2] of points that `matrix` makes of the source vertices."""
        return np.stack([matrix @ self.head_weight, matrix @ self.neck_weight], -1)

    def morph(self, matrix: Any, offset: Array | float = 0.0) -> Morph:
        """The face-unit morph of points that are combinations `matrix` of the source vertices."""
        return Morph(matrix @ self.vertices + offset, [matrix @ d for d in self.deltas])

    def units_from(self, values: dict[str, float]) -> Array:
        """Unit values [52] from names; a name without Left or Right sets both sides.

        Raises:
            KeyError: a name is no face unit.
        """
        out = np.zeros(len(self.units))
        for name, value in values.items():
            for full in [name] if name in self.unit else [f"{name}Left", f"{name}Right"]:
                out[self.unit[full]] = value
        return out

    def eye_vertices(self, side: str) -> Array:
        """Rest positions of the helper mesh of one eye ("l" or "r")."""
        return self.vertices[group_vertices(self.groups[f"helper-{side}-eye"])]
