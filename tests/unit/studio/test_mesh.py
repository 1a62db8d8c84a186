"""Mesh readers and operations on data small enough to check by hand."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tools.studio.mesh import (
    Morph,
    bind_points,
    catmull_clark,
    cut,
    grid_quads,
    normals,
    read_obj,
    read_target,
    triangles,
)

CUBE = """
# a cube in two groups
v -1 -1 -1
v 1 -1 -1
v 1 1 -1
v -1 1 -1
v -1 -1 1
v 1 -1 1
v 1 1 1
v -1 1 1
vt 0 0
vt 1 0
vt 1 1
g ends
f 1/1 4/1 3/3 2/2
f 5/1 6/2 7/3 8/1
g sides
f 1 2 6 5
f 2 3 7 6
f 3 4 8 7
f 4 1 5 8
"""


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    path = tmp_path / "cube.obj"
    path.write_text(CUBE)
    return path


def quads_of(cube: Path) -> tuple[np.ndarray, np.ndarray]:
    vertices, _, groups = read_obj(cube)
    return vertices, np.array([[v for v, _ in face] for faces in groups.values() for face in faces])


def test_obj_keeps_groups_and_texture_coordinates(cube: Path) -> None:
    vertices, coordinates, groups = read_obj(cube)
    assert vertices.shape == (8, 3)
    assert coordinates.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert {name: len(faces) for name, faces in groups.items()} == {"ends": 2, "sides": 4}
    assert groups["ends"][0] == [(0, 0), (3, 0), (2, 2), (1, 1)]
    assert groups["sides"][0] == [(0, 0), (1, 0), (5, 0), (4, 0)]


@pytest.mark.parametrize("name", ["smile.target", "smile.target.gz"])
def test_target_is_dense_and_may_be_compressed(tmp_path: Path, name: str) -> None:
    text = b"# comment\n1 .5 0 -.25\n\n3 0 1 0\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    offsets = read_target(path, 4)
    assert offsets.tolist() == [[0, 0, 0], [0.5, 0, -0.25], [0, 0, 0], [0, 1, 0]]


def test_subdivided_cube_tends_to_a_sphere(cube: Path) -> None:
    vertices, quads = quads_of(cube)
    once, matrix = catmull_clark(quads, len(vertices))
    assert once.shape == (24, 4)
    assert matrix.shape == (8 + 6 + 12, 8)
    np.testing.assert_allclose(np.asarray(matrix.sum(1)).ravel(), 1)
    # A corner moves to 5/9, as Catmull and Clark's rule for valence three says.
    np.testing.assert_allclose(np.abs(matrix @ vertices)[:8], 5 / 9)


def test_subdivision_keeps_the_border_of_an_open_sheet() -> None:
    x, y = np.meshgrid(np.arange(4.0), np.arange(4.0))
    sheet = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], -1)
    _, matrix = catmull_clark(grid_quads(4, 4), 16)
    fine = matrix @ sheet
    np.testing.assert_allclose(fine[:, 2], 0)
    assert fine[:, :2].min() >= 0
    middle_of_border = fine[1]
    assert middle_of_border[1] == pytest.approx(0)


def test_normals_point_out_of_a_cube(cube: Path) -> None:
    vertices, quads = quads_of(cube)
    out = normals(vertices.astype(np.float32), triangles(quads))
    assert ((out * vertices).sum(1) > 0.9).all()


def test_morph_is_linear_in_the_units() -> None:
    rest = np.zeros((3, 3))
    up, aside = np.zeros((3, 3)), np.zeros((3, 3))
    up[0, 1], aside[2, 0] = 1, 2
    morph = Morph(rest, [up, aside])
    np.testing.assert_allclose(morph(np.array([0.5, 0.25])), 0.5 * up + 0.25 * aside)
    np.testing.assert_allclose(morph(np.zeros(2)), rest)


def test_bound_points_follow_their_triangle() -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0], [5, 5, 5]])
    tri = np.array([[0, 1, 2]] * 8)
    weights = bind_points(np.array([[0.25, 0.5, 3.0]]), corners, tri)
    np.testing.assert_allclose(weights.toarray(), [[0.25, 0.25, 0.5, 0]])


def test_cut_meets_the_plane_exactly(cube: Path) -> None:
    vertices, quads = quads_of(cube)
    kept, tri, edge = cut(vertices, triangles(quads), vertices[:, 1] - 0.25)
    np.testing.assert_allclose(edge[:, 1], 0.25)
    assert kept[np.unique(tri)][:, 1].max() == pytest.approx(0.25)


def test_closed_grid_uses_every_vertex_four_times() -> None:
    quads = grid_quads(5, 7, wrap_rows=True, wrap_columns=True)
    assert (np.bincount(quads.ravel()) == 4).all()
