"""Poses and shapes from what is seen: bundle adjustment, following patches, un-posing, outlines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.bundle_adjustment import (
    Prior,
    Views,
    adjust,
    angles,
    exponential,
    find_poses,
    jitter,
    project,
    spread_views,
)
from model_hosts.talking_gaussian.preprocess.depth import key_depth
from model_hosts.talking_gaussian.preprocess.flow import cut_patches, follow
from model_hosts.talking_gaussian.preprocess.head import head_from_landmarks
from model_hosts.talking_gaussian.preprocess.lips import POINTS, closed_code, lip_code, unpose
from tests.doubles.speaking_person import SIZE, Person, mesh

FOCAL = 1200.0


def _views(rng: np.random.Generator, count: int) -> Views:
    turn = rng.normal(0, 0.12, (count, 3))
    place = rng.normal([0, 0, 0.9], 0.01, (count, 3))
    return Views(np.diag([1.0, -1.0, -1.0]) @ Rotation.from_rotvec(turn).as_matrix(), place)


def _cloud(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(0, 1, (count, 3)) * [0.06, 0.07, 0.03]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), outliers=st.integers(0, 6))
def test_poses_are_found_again_whatever_they_are_and_outliers_do_not_matter(seed: int, outliers: int):
    rng = np.random.default_rng(seed)
    truth, points = _views(rng, 6), _cloud(rng, 40)
    seen = project(truth, points, FOCAL)
    for view in range(len(truth)):
        seen[view, rng.choice(40, outliers, replace=False)] += rng.normal(0, 25, (outliers, 2))
    start = Views(
        exponential(rng.normal(0, 0.05, (6, 3))) @ truth.rotation,
        truth.translation + rng.normal(0, 0.01, (6, 3)),
    )
    found = find_poses(seen, np.ones(seen.shape[:2]), points, start, FOCAL, 0.5, 40)
    assert np.abs(angles(found.rotation) - angles(truth.rotation)).max() < 0.25
    assert np.abs(found.translation - truth.translation).max() < 0.004


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_shape_and_poses_are_found_together(seed: int):
    rng = np.random.default_rng(seed)
    truth, points = _views(rng, 40), _cloud(rng, 60)
    seen = project(truth, points, FOCAL) + rng.normal(0, 0.05, (40, 60, 2))
    rough = points + rng.normal(0, 0.003, points.shape)
    found, views = adjust(
        seen, np.ones((40, 60)), rough, truth, FOCAL, prior=Prior(rough, 1e-4), huber=1.0, steps=15
    )
    error = np.linalg.norm(project(views, found, FOCAL) - seen, axis=-1)
    assert error.mean() < 0.1
    # The frame as a whole is that of the rough shape; the motion is the true one.
    frame = Rotation.from_matrix(truth.rotation.transpose(0, 2, 1) @ views.rotation)
    assert np.degrees((frame.mean().inv() * frame).magnitude()).max() < 0.2
    # Placed on the truth by a similarity, the shape is nearer to it than the rough one was.
    assert _misfit(found, points) < 0.5 * _misfit(rough, points)


def _misfit(points: np.ndarray, truth: np.ndarray) -> float:
    a, b = points - points.mean(0), truth - truth.mean(0)
    left, singular, right = np.linalg.svd(a.T @ b)
    return float(np.linalg.norm(a @ left @ right * singular.sum() / (a**2).sum() - b))


@settings(deadline=None)
@given(vector=st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_the_exponential_is_the_rotation_of_its_vector(vector: list[float]):
    turn = exponential(np.array(vector))
    np.testing.assert_allclose(turn, Rotation.from_rotvec(vector).as_matrix(), atol=1e-8)


def test_jitter_is_the_spread_of_white_noise_and_not_of_slow_motion():
    rng = np.random.default_rng(0)
    time = np.arange(5000)[:, None]
    assert jitter(rng.normal(0, 0.3, (5000, 1)))[0] == pytest.approx(0.3, rel=0.05)
    assert jitter(20 * np.sin(time / 40))[0] < 0.01


def test_the_views_that_are_chosen_differ_most():
    numbers = np.array([[0.0], [0.1], [5.0], [5.1], [-4.0]])
    assert spread_views(numbers, 3, 0).tolist() == [0, 3, 4]
    assert spread_views(np.zeros((4, 2)), 3, 1).tolist() == [1]


@settings(max_examples=15, deadline=None)
@given(
    shift=st.tuples(st.floats(-2.5, 2.5), st.floats(-2.5, 2.5)),
    turn=st.floats(-0.15, 0.15),
    gain=st.floats(0.6, 1.5),
)
def test_patches_are_followed_to_a_twentieth_of_a_pixel(shift: tuple[float, float], turn: float, gain: float):
    rng = np.random.default_rng(7)
    first = gaussian_filter(rng.normal(0, 1, (96, 96)), 1.5).astype(np.float32) * 200 + 100
    points = np.stack(np.meshgrid([36.0, 48.0, 60.0], [40.0, 56.0]), -1).reshape(-1, 2).astype(np.float32)
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    rows, columns = np.mgrid[:96, :96] + 0.5
    moved = (np.stack([columns, rows], -1) - 48 - shift) @ linear + 48
    second = gain * map_coordinates(first, np.moveaxis(moved[..., ::-1] - 0.5, -1, 0), order=3) + 20
    # What is known beforehand is the turn, not the shift.
    affine = np.concatenate([linear, (48 - linear @ [48, 48])[:, None]], 1)
    found, agreement = follow(cut_patches(first, points), second.astype(np.float32), affine)
    np.testing.assert_allclose(found, (points - 48) @ linear.T + 48 + shift, atol=0.05)
    assert agreement.min() > 0.97


def test_a_patch_that_is_covered_agrees_badly():
    rng = np.random.default_rng(8)
    first = gaussian_filter(rng.normal(0, 1, (64, 64)), 1.5).astype(np.float32) * 200
    second = first.copy()
    second[:, :32] = gaussian_filter(rng.normal(0, 1, (64, 32)), 1.5) * 200
    points = np.array([[16.0, 32.0], [48.0, 32.0]], np.float32)
    _, agreement = follow(cut_patches(first, points), second, np.eye(3)[:2])
    assert agreement[0] < 0.6
    assert agreement[1] > 0.99


def test_head_poses_come_out_of_landmarks_that_speak():
    person = Person(60)
    noise = np.random.default_rng(0)
    points = np.stack([person.points(index) for index in range(60)])
    points[..., :2] += noise.normal(0, 0.2, points[..., :2].shape)
    poses = np.stack([person.face(index).pose for index in range(60)])
    head = head_from_landmarks(points.astype(np.float32), poses, SIZE)
    turned = angles(head.views.rotation) - angles(person.rotation)
    assert np.abs(turned.mean(0)).max() < 1.0
    assert turned.std(0).max() < 0.25


def test_unposed_lips_do_not_know_how_the_head_is_turned():
    rng = np.random.default_rng(2)
    views, shape = _views(rng, 30), mesh()[list(POINTS)]
    unposed = unpose(
        project(views, shape, FOCAL).astype(np.float32), views.matrices(), shape.astype(np.float32), FOCAL
    )
    np.testing.assert_allclose(unposed, np.tile(shape[None, :, :2] * 1000, (30, 1, 1)), atol=0.02)


def test_the_lip_code_rebuilds_the_lips_and_knows_the_closed_mouth():
    rng = np.random.default_rng(3)
    shape = mesh()[list(POINTS), :2] * 1000
    ways = rng.normal(0, 1, (3, len(POINTS), 2))
    amount = np.abs(rng.normal(0, 1, (80, 3))) * [3, 2, 1]
    amount[:10] = 0
    unposed = (shape + np.einsum("tk,kpc->tpc", amount, ways)).astype(np.float32)
    code = lip_code(unposed, np.arange(60))
    rebuilt = code.mean + np.einsum("tl,lpc->tpc", code.codes, code.basis)
    np.testing.assert_allclose(rebuilt, unposed, atol=0.01)
    assert code.codes[:60].std(0).max() < 1.001
    np.testing.assert_allclose(code.codes[:60].mean(0), 0, atol=1e-4)
    silent = np.zeros(80, bool)
    silent[:10] = True
    np.testing.assert_allclose(closed_code(code.codes, amount.sum(1), silent), code.codes[0], atol=1e-3)


def test_depth_follows_the_face_and_falls_off_beside_it():
    person = Person(2)
    views = Views(person.rotation, person.translation)
    points = person.points(0)
    head, hair, _, torso = person.masks(0)
    labels = np.select([hair, head, torso], [2, 1, 5], 0).astype(np.uint8)
    camera = views.camera(mesh()[: face.MESH])[0]
    depth = key_depth(labels, points[: face.MESH, :2].astype(float), camera, face.CHIN_TIP, 2.34375 * SIZE)
    assert not depth[labels == 0].any() and (depth[labels > 0] > 0.7).all()
    nose = points[1, :2].astype(int)
    assert depth[nose[1], nose[0]] == pytest.approx(camera[1, 2], abs=0.004)
    assert depth[hair].mean() > depth[nose[1], nose[0]] + 0.03
    assert np.ptp(depth[labels == 5]) == 0


def test_polygons_hold_the_pixels_whose_centre_is_inside():
    square = np.array([[2, 3], [7, 3], [7, 5], [2, 5]], np.float32)
    mask = face.fill(square, (10, 12))
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 4, 2, 6)
    assert mask.sum() == 10
    assert face.fill(square * 10 - 30, (10, 12)).sum() == 12 * 10
    turn = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = 20 + 8.2 * np.stack([np.cos(turn), np.sin(turn)], 1)
    rows, columns = np.mgrid[:40, :40] + 0.5
    np.testing.assert_array_equal(
        face.fill(circle.astype(np.float32), (40, 40)), np.hypot(rows - 20, columns - 20) < 8.2
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=25, unique=True))
def test_a_hull_holds_all_its_points(corners: list[tuple[int, int]]):
    points = np.array(corners, np.float32)
    outline = face.hull(points)
    for start, end in zip(outline, np.roll(outline, -1, 0), strict=True):
        edge = end - start
        away = edge[0] * (points[:, 1] - start[1]) - edge[1] * (points[:, 0] - start[0])
        assert (away >= -1e-3).all()
