"""The numpy deformation against the documented formulas in plain float64."""

from __future__ import annotations

import numpy as np
import pytest

from model_hosts.talking_gaussian.bundle import BRANCHES, Bundle
from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput
from model_hosts.talking_gaussian.model.network import BLOCK
from tests.doubles.avatar import make_avatar
from tests.doubles.plain_deformation import gaussian, rotation


def frame_of(bundle: Bundle, seed: int) -> FrameInput:
    rng = np.random.default_rng(seed)
    values = (
        rng.normal(size=bundle.info.lip_code),
        rng.normal(size=len(bundle.info.expression_names)),
        rng.normal(size=6) * bundle.tensor("pose.std"),
        rng.normal(size=4) * bundle.tensor("track.std"),
    )
    return FrameInput(*(value.astype(np.float32) for value in values))


@pytest.fixture(scope="module")
def avatar() -> Bundle:
    # The face fills whole blocks and a part of one.
    return make_avatar(int(BLOCK * 2.2 / 0.63))


@pytest.mark.parametrize("seed", [1, 2])
def test_follows_the_documented_formulas(avatar: Bundle, seed: int) -> None:
    frame = frame_of(avatar, seed)
    deformer = Deformer(avatar, tolerance=0)
    splats = deformer.pose(frame, deformer.workspace())
    doubles = [value.astype(np.float64) for value in frame]
    start = 0
    for branch in BRANCHES:
        order = deformer.order[branch]
        for column in range(0, len(order), 29):
            expected = gaussian(avatar, branch, int(order[column]), *doubles)
            actual = splats.planes[:, start + column].astype(np.float64)
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
            # Positions are metres: a tenth of a pixel is 7e-5 of them.
            np.testing.assert_allclose(actual[:3], expected[:3], atol=2e-6)
        start += len(order)


def test_views_follow_the_pose(avatar: Bundle) -> None:
    frame = frame_of(avatar, 3)
    deformer = Deformer(avatar)
    head, torso = deformer.pose(frame, deformer.workspace()).segments
    mean = avatar.tensor("pose.mean").astype(np.float64)
    expected = rotation(frame.pose[:3].astype(np.float64)) @ mean[:3, :3]
    np.testing.assert_allclose(head.view[:, :3], expected, atol=1e-6)
    np.testing.assert_allclose(head.view[:, 3], mean[:3, 3] + frame.pose[3:], atol=1e-6)
    np.testing.assert_array_equal(torso.view, np.eye(3, 4))
    assert (head.start, head.stop) == (0, torso.start)
    assert torso.stop == deformer.count == sum(b.count for b in avatar.info.branches.values())


def test_a_frame_leaves_nothing_behind(avatar: Bundle) -> None:
    deformer = Deformer(avatar)
    used, fresh = deformer.workspace(), deformer.workspace()
    for seed in (4, 5, 6):
        deformer.pose(frame_of(avatar, seed), used)
    again = deformer.pose(frame_of(avatar, 4), used)
    np.testing.assert_array_equal(again.planes, deformer.pose(frame_of(avatar, 4), fresh).planes)


def test_freezes_what_nothing_moves() -> None:
    bundle = make_avatar(2000)
    # The upper half of the head: its outputs lose their weights, and keep a bias.
    out = bundle.tensor("face.net.out.weight")
    still = Bundle(
        bundle.info,
        {**bundle.tensors, "face.net.out.weight": np.zeros_like(out)},
        bundle.background,
        bundle.thumbnail,
    )
    deformer = Deformer(still)
    face = still.info.branches["face"].count
    assert deformer.active <= deformer.count - face
    exact = Deformer(still, tolerance=0)
    frozen = deformer.pose(frame_of(still, 7), deformer.workspace())
    moved = exact.pose(frame_of(still, 7), exact.workspace())
    # Sorted, since what is frozen comes last.
    np.testing.assert_allclose(
        frozen.planes[:, np.argsort(deformer.order["face"])],
        moved.planes[:, :face][:, np.argsort(exact.order["face"])],
        atol=1e-5,
    )


def test_frozen_gaussians_are_off_by_less_than_one_can_see() -> None:
    bundle = make_avatar(2000, motion=0.005)
    deformer, exact = Deformer(bundle), Deformer(bundle, tolerance=0)
    assert 0 < deformer.active < deformer.count
    rng = np.random.default_rng(0)
    frame = frame_of(bundle, 8)._replace(lip=rng.normal(size=bundle.info.lip_code).astype(np.float32))
    a = deformer.pose(frame, deformer.workspace()).planes
    b = exact.pose(frame, exact.workspace()).planes
    start = 0
    for branch in BRANCHES:
        order_a, order_b = deformer.order[branch], exact.order[branch]
        columns = slice(start, start + len(order_a))
        difference = np.abs(a[:, columns][:, np.argsort(order_a)] - b[:, columns][:, np.argsort(order_b)])
        metres = 0.05 * 0.9 / bundle.info.camera.focal
        assert difference[:3].max() < 2 * metres
        assert difference[11:14].max() < 2 * 0.002
        start += len(order_a)
