"""Mesh toolbox: reading the source files, Catmull-Clark as a sparse matrix, normals, linear morphs, binding.

Everything that follows the face is a linear function of the source vertices. A part therefore owns one sparse
matrix M (subdivision or barycentric binding) and its face-unit deltas are M @ (deltas of the source).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from numba import njit
from scipy.spatial import cKDTree

Array = npt.NDArray[Any]
Face = list[tuple[int, int]]
"""Corners of one polygon: (vertex, texture coordinate) indices from 0."""


def unit(vectors: Array) -> Array:
    """Vectors [..., 3] scaled to length one; zero stays zero."""
    scaled: Array = vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-12)
    return scaled


def smoothstep(low: float, high: float, x: Array) -> Array:
    """Hermite step from 0 at `low` to 1 at `high`; `low` may be the larger one."""
    t = np.clip((np.asarray(x) - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def read_obj(path: Path) -> tuple[Array, Array, dict[str, list[Face]]]:
    """Read a Wavefront OBJ: vertices [n, 3], texture coordinates [m, 2] and the polygons of each group."""
    vertices: list[list[float]] = []
    coordinates: list[list[float]] = []
    groups: dict[str, list[Face]] = {}
    group = ""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            word = line.split()
            if not word:
                continue
            if word[0] == "v":
                vertices.append([float(x) for x in word[1:4]])
            elif word[0] == "vt":
                coordinates.append([float(x) for x in word[1:3]])
            elif word[0] == "g":
                group = word[1]
            elif word[0] == "f":
                groups.setdefault(group, []).append([_corner(c) for c in word[1:]])
    return np.array(vertices), np.array(coordinates).reshape(-1, 2), groups


def _corner(text: str) -> tuple[int, int]:
    vertex, _, rest = text.partition("/")
    coordinate = rest.partition("/")[0]
    return int(vertex) - 1, int(coordinate) - 1 if coordinate else 0


def read_target(path: Path, count: int) -> Array:
    """Read a MakeHuman morph target (`index dx dy dz` lines, gzip allowed) as dense offsets [count, 3]."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    offsets = np.zeros((count, 3))
    for line in text.splitlines():
        word = line.split()
        if word and not word[0].startswith("#"):
            offsets[int(word[0])] = [float(x) for x in word[1:4]]
    return offsets


def group_vertices(faces: Iterable[Face]) -> npt.NDArray[np.int64]:
    """Sorted vertex numbers that a set of polygons uses."""
    return np.unique([vertex for face in faces for vertex, _ in face]).astype(np.int64)


def triangles(quads: Array) -> npt.NDArray[np.int32]:
    """Two triangles for each quad: [m, 4] -> [2m, 3]."""
    q = np.asarray(quads)
    return np.concatenate([q[:, [0, 1, 2]], q[:, [0, 2, 3]]]).astype(np.int32)


def _incidence(rows: Array, columns: Array, values: Array, shape: tuple[int, int]) -> Any:
    return sp.csr_matrix((values, (rows, columns)), shape)


def catmull_clark(quads: Array, count: int) -> tuple[Array, Any]:
    """One Catmull-Clark step (Catmull and Clark 1978, open borders as B-splines).

    Args:
        quads: [m, 4] vertex numbers below `count`.
        count: number of vertices n.

    Returns:
        New quads [4m, 4] and the sparse matrix [n', n] that makes the new vertices from the old ones.
    """
    q = np.asarray(quads)
    m = len(q)
    edges, edge_of, uses = np.unique(
        np.sort(np.stack([q, np.roll(q, -1, 1)], -1).reshape(-1, 2), 1),
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    edge_of = edge_of.ravel()
    ne = len(edges)
    border = uses == 1
    corner_face = np.repeat(np.arange(m), 4)
    face_points = _incidence(corner_face, q.ravel(), np.full(4 * m, 0.25), (m, count))
    edge_ends = np.repeat(np.arange(ne), 2)
    middles = _incidence(edge_ends, edges.ravel(), np.full(2 * ne, 0.5), (ne, count))
    edge_faces = _incidence(edge_of, corner_face, np.ones(4 * m), (ne, m))
    edge_faces = sp.diags(1 / np.asarray(edge_faces.sum(1)).ravel()) @ edge_faces
    inner = sp.diags((~border).astype(float))
    edge_points = middles - 0.5 * inner @ middles + 0.5 * inner @ (edge_faces @ face_points)

    vertex_faces = _incidence(q.ravel(), corner_face, np.ones(4 * m), (count, m))
    vertex_edges = _incidence(edges.ravel(), edge_ends, np.ones(2 * ne), (count, ne))
    valence = np.maximum(np.asarray(vertex_edges.sum(1)).ravel(), 1)
    faces_at = np.maximum(np.asarray(vertex_faces.sum(1)).ravel(), 1)
    on_border = np.asarray(vertex_edges @ border.astype(float)).ravel() > 0
    smooth = (
        sp.diags(1 / valence / faces_at) @ vertex_faces @ face_points
        + sp.diags(2 / valence / valence) @ vertex_edges @ middles
        + sp.diags((valence - 3) / valence)
    )
    border_edges = vertex_edges @ sp.diags(border.astype(float))
    border_count = np.maximum(np.asarray(border_edges.sum(1)).ravel(), 1)
    crease = 0.5 * sp.identity(count) + 0.5 * sp.diags(1 / border_count) @ border_edges @ middles
    vertex_points = sp.diags((~on_border).astype(float)) @ smooth + sp.diags(on_border.astype(float)) @ crease

    e = edge_of.reshape(m, 4)
    first_edge, first_face = count + m, count
    # New vertices are stacked as [vertex points, face points, edge points].
    new_quads = np.stack(
        [
            np.stack([q[:, j], first_edge + e[:, j], first_face + np.arange(m), first_edge + e[:, j - 1]], -1)
            for j in range(4)
        ],
        1,
    ).reshape(-1, 4)
    return new_quads, sp.vstack([vertex_points, face_points, edge_points]).tocsr()


def neighbour_average(tri: Array, count: int) -> Any:
    """Sparse matrix [count, count] that replaces each vertex by the mean of its neighbours."""
    link = sp.csr_matrix((np.ones(tri.size), (tri.ravel(), np.roll(tri, 1, 1).ravel())), (count, count))
    link = ((link + link.T) > 0).astype(float)
    return sp.diags(1 / np.maximum(1, np.asarray(link.sum(1)).ravel())) @ link


@njit(cache=True, fastmath=True)
def normals(points: Array, tri: Array) -> Array:
    """Area-weighted unit vertex normals [n, 3] of a triangle mesh."""
    out = np.zeros_like(points)
    for i in range(tri.shape[0]):
        a, b, c = tri[i, 0], tri[i, 1], tri[i, 2]
        ux = points[b, 0] - points[a, 0]
        uy = points[b, 1] - points[a, 1]
        uz = points[b, 2] - points[a, 2]
        vx = points[c, 0] - points[a, 0]
        vy = points[c, 1] - points[a, 1]
        vz = points[c, 2] - points[a, 2]
        x = uy * vz - uz * vy
        y = uz * vx - ux * vz
        z = ux * vy - uy * vx
        for k in (a, b, c):
            out[k, 0] += x
            out[k, 1] += y
            out[k, 2] += z
    for i in range(out.shape[0]):
        length = (out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) ** 0.5 + 1e-12
        for k in range(3):
            out[i, k] /= length
    return out


@njit(cache=True, fastmath=True)
def _add_rows(points: Array, rows: Array, offsets: Array, weight: float) -> None:
    for i in range(rows.shape[0]):
        k = rows[i]
        for j in range(3):
            points[k, j] += weight * offsets[i, j]


class Morph:
    """Points that are linear in the face units; offsets smaller than 2 micrometres are dropped."""

    def __init__(self, rest: Array, deltas: Sequence[Array], epsilon: float = 2e-5) -> None:
        self.rest = np.ascontiguousarray(rest, np.float32)
        self._rows: list[tuple[Array, Array]] = []
        for delta in deltas:
            rows = np.where(np.abs(delta).max(1) > epsilon)[0]
            self._rows.append((rows.astype(np.int32), np.ascontiguousarray(delta[rows], np.float32)))

    def __call__(self, units: Array) -> Array:
        """Positions [n, 3] float32 for unit values [u]."""
        points = self.rest.copy()
        for (rows, offsets), weight in zip(self._rows, units, strict=True):
            if weight and len(rows):
                _add_rows(points, rows, offsets, float(weight))
        return points


def bind_points(points: Array, vertices: Array, tri: Array) -> Any:
    """Sparse barycentric weights [points, vertices] of the closest point on the nearest triangles."""
    _, candidates = cKDTree(vertices[tri].mean(1)).query(points, k=8)
    a, b, c = (vertices[tri[candidates][..., j]] for j in range(3))
    e0, e1, d = b - a, c - a, points[:, None] - a
    aa, ab, bb = (e0 * e0).sum(-1), (e0 * e1).sum(-1), (e1 * e1).sum(-1)
    f, g = (e0 * d).sum(-1), (e1 * d).sum(-1)
    determinant = aa * bb - ab * ab + 1e-18
    u = np.clip((bb * f - ab * g) / determinant, 0, 1)
    v = np.clip((aa * g - ab * f) / determinant, 0, 1)
    scale = np.maximum(u + v, 1)
    u, v = u / scale, v / scale
    on_triangle = a + u[..., None] * e0 + v[..., None] * e1
    best = np.argmin(((on_triangle - points[:, None]) ** 2).sum(-1), 1)
    row = np.arange(len(points))
    weights = np.stack([1 - u - v, u, v], -1)[row, best]
    corner = tri[candidates[row, best]]
    return sp.csr_matrix((weights.ravel(), (np.repeat(row, 3), corner.ravel())), (len(points), len(vertices)))


def cut(vertices: Array, tri: Array, value: Array) -> tuple[Array, Array, Array]:
    """Keep the side of a triangle mesh where `value` < 0, cutting triangles exactly.

    Args:
        vertices: [n, k] positions, with any further columns to interpolate.
        tri: [m, 3].
        value: [n] signed function.

    Returns:
        Vertices (old ones first), triangles, and the vertices made by the cut.
    """
    points = list(vertices)
    level = list(value)
    made: dict[tuple[int, int], int] = {}

    def crossing(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in made:
            t = level[a] / (level[a] - level[b])
            points.append(points[a] + t * (points[b] - points[a]))
            level.append(0.0)
            made[key] = len(points) - 1
        return made[key]

    out: list[tuple[int, int, int]] = []
    for t in tri.tolist():
        polygon: list[int] = []
        for a, b in ((t[0], t[1]), (t[1], t[2]), (t[2], t[0])):
            if level[a] < 0:
                polygon.append(a)
            if (level[a] < 0) != (level[b] < 0):
                polygon.append(crossing(a, b))
        out.extend((polygon[0], polygon[k], polygon[k + 1]) for k in range(1, len(polygon) - 1))
    stacked = np.array(points)
    return stacked, np.array(out, np.int32), stacked[list(made.values())]


def grid_quads(rows: int, columns: int, *, wrap_rows: bool = False, wrap_columns: bool = False) -> Array:
    """Quads of a `rows` x `columns` grid of vertices, optionally closed in either direction."""
    i, j = np.meshgrid(
        np.arange(rows if wrap_rows else rows - 1),
        np.arange(columns if wrap_columns else columns - 1),
        indexing="ij",
    )
    k, n = (i + 1) % rows, (j + 1) % columns
    return np.stack([i * columns + j, i * columns + n, k * columns + n, k * columns + j], -1).reshape(-1, 4)
