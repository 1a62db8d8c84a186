"""Recordings made smaller: what is measured in pixels must follow the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet, load
from model_hosts.talking_gaussian.preprocess.resize import resized
from tests.doubles import talking_head


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return load(talking_head.write_studio(Path(tmp_path_factory.mktemp("studio"))))


def test_half_as_wide_means_over_two_by_two_pixels(data: TrainingSet):
    small = resized(data, 32)
    assert small.size == (32, 32)
    for now, before in ((small.frames, data.frames), (small.plate[None], data.plate[None])):
        means = before.reshape(-1, 32, 2, 32, 2, 3).astype(float).mean((2, 4))
        assert np.abs(now - means).max() <= 0.51
    np.testing.assert_array_equal(small.labels, data.labels[:, 1::2, 1::2])
    np.testing.assert_array_equal(small.depth, data.depth[1::2, 1::2])


@pytest.mark.parametrize("width", [32, 40, 56])
def test_points_of_the_head_stay_where_they_were_in_the_picture(data: TrainingSet, width: int):
    small = resized(data, width)
    factor = width / data.size[1]
    assert small.focal == pytest.approx(data.focal * factor)
    assert small.centre == (width / 2, width / 2)
    np.testing.assert_allclose(small.track, data.track * [factor, factor, 1, 1], rtol=1e-6)
    for before, now, box, new in (
        (data.lip_corner, small.lip_corner, data.lip_box, small.lip_box),
        (data.eye_corners, small.eye_corners, data.eye_box, small.eye_box),
    ):
        middle, moved = before + np.array(box) / 2, now + np.array(new) / 2
        assert np.abs(moved - middle * factor).max() <= 0.51
        assert now.min() >= 0
        assert (now + new).max() <= width
    # The head is as large a part of the picture as it was.
    shares = [(labels == 1).mean() for labels in (data.labels, small.labels)]
    assert shares[1] == pytest.approx(shares[0], rel=0.05)


def test_a_recording_is_never_made_larger(data: TrainingSet):
    assert resized(data, 0) is data
    assert resized(data, 64) is data
    assert resized(data, 256) is data
