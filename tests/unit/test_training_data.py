"""Reading a studio recording, the maps of the face units, head poses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from model_hosts.talking_gaussian.driving import units as unit_names
from model_hosts.talking_gaussian.preprocess.dataset import MOUTH, TrainingSet, load
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.preprocess.poses import pose_statistics, to_head, unproject
from model_hosts.talking_gaussian.preprocess.units import EXPRESSION, fit_unit_maps, without_gaze_in_blinks
from model_hosts.talking_gaussian.training.settings import Settings
from model_hosts.talking_gaussian.training.stages import Sampler, Stage, shut
from tests.doubles import talking_head


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_head.write_studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def data(recording: Path) -> TrainingSet:
    return load(recording)


def test_pictures_and_labels_come_back_exactly(data: TrainingSet):
    frames, labels, plate, _ = talking_head.draw()
    np.testing.assert_array_equal(data.labels, labels)
    np.testing.assert_array_equal(data.plate, plate)
    np.testing.assert_array_equal(data.frames, frames)
    assert data.size == (talking_head.SIZE, talking_head.SIZE)


def test_the_last_tenth_is_held_out(data: TrainingSet):
    assert data.held_out.tolist() == [36, 37, 38, 39]
    assert data.training.tolist() == list(range(36))


def test_the_head_frame_is_moved_to_the_middle_of_the_head_without_moving_the_picture(data: TrainingSet):
    rows, columns = np.nonzero(np.isin(data.labels[data.key], (1, 3)))
    pixels = np.stack([columns + 0.5, rows + 0.5], 1).astype(np.float32)
    points = to_head(
        unproject(pixels, data.depth[rows, columns], data.focal, data.centre), data.poses[data.key]
    )
    middle = (points.min(0) + points.max(0)) / 2
    assert np.abs(middle[1:]).max() < 0.002
    np.testing.assert_array_equal(data.poses[:, :3, :3], talking_head.poses()[:, :3, :3])


def test_the_boxes_hold_mouth_and_eyes(data: TrainingSet):
    for index in range(data.count):
        rows, columns = np.nonzero(data.labels[index] == MOUTH)
        left, top = data.lip_corner[index]
        assert (columns >= left).all() and (columns < left + data.lip_box[0]).all()
        assert (rows >= top).all() and (rows < top + data.lip_box[1]).all()
        assert (data.eye_corners[index] >= 0).all()


def test_breath_becomes_the_torso_track(data: TrainingSet):
    breath = np.sin(np.arange(talking_head.FRAMES) * 0.2)
    assert np.corrcoef(data.track[:, 1], breath)[0, 1] == pytest.approx(-1, abs=1e-5)
    assert not data.track[:, [0, 2, 3]].any()


def test_the_closed_code_is_that_of_frames_with_a_closed_mouth(data: TrainingSet):
    jaw = talking_head.unit_names().index("jawOpen")
    shut = data.units[:, jaw] == 0
    assert (
        np.abs(data.lip[shut] - data.closed).sum(1).min() < np.abs(data.lip[~shut] - data.closed).sum(1).min()
    )


def test_each_unit_drives_lips_or_expression_but_not_both(data: TrainingSet):
    lips, face = np.abs(data.maps.to_lip).sum(1) > 0, np.abs(data.maps.to_expression).sum(1) > 0
    assert not (lips & face).any()
    names = np.array(data.maps.names)
    assert set(names[lips]) == {"jawOpen", "mouthPucker"}
    assert set(names[face]) == {"eyeBlinkLeft", "eyeBlinkRight", "browInnerUp"}


def test_codes_have_mean_zero_and_at_most_unit_spread(data: TrainingSet):
    lip = data.lip[data.training]
    np.testing.assert_allclose(lip.mean(0), 0, atol=1e-4)
    assert lip.std(0)[0] == pytest.approx(1, rel=0.01)
    assert (lip.std(0) <= 1.01).all()
    np.testing.assert_allclose(data.expression[data.training].mean(0), 0, atol=1e-4)


def test_the_lip_code_keeps_what_the_mouth_units_say():
    rng = np.random.default_rng(0)
    names = tuple(talking_head.unit_names())
    units = np.zeros((200, 52), np.float32)
    mouth = [names.index(name) for name in ("jawOpen", "mouthPucker", "mouthSmileLeft", "tongueOut")]
    units[:, mouth] = rng.random((200, 4))
    points = (units[:, mouth[:3]] @ rng.normal(size=(3, 10))).reshape(200, 5, 2).astype(np.float32)
    maps = fit_unit_maps(units, names, points, 12)
    code = maps.lip(units)
    assert code.shape == (200, 4)
    back = np.linalg.lstsq(np.c_[code, np.ones(200)], units[:, mouth], rcond=None)[0]
    np.testing.assert_allclose(np.c_[code, np.ones(200)] @ back, units[:, mouth], atol=1e-3)
    assert maps.expression_names == tuple(EXPRESSION)


def tracked(blinks: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """Units of 100 frames whose lids blink so far at frame 50, and eyes that seem to look down then."""
    names = tuple(unit_names.UNIT_NAMES)
    units = np.full((100, 52), 0.1, np.float32)
    for side in ("Left", "Right"):
        units[20:30, names.index(f"eyeLookOut{side}")] = 0.6
        units[49:52, names.index(f"eyeBlink{side}")] = 0.1 + blinks * np.array([0.5, 1.0, 0.5])
        units[49:52, names.index(f"eyeLookDown{side}")] = [0.5, 0.7, 0.5]
    return units, names


def test_shut_eyes_look_nowhere():
    units, names = tracked(0.5)
    clean = without_gaze_in_blinks(units, names, np.arange(100))
    down = clean[:, names.index("eyeLookDownLeft")]
    assert down[50] == pytest.approx(0.1)
    assert down[49] == pytest.approx(0.3)
    other = [index for index, name in enumerate(names) if "Look" not in name]
    np.testing.assert_array_equal(clean[:, other], units[:, other])
    np.testing.assert_array_equal(clean[:45], units[:45])


def test_eyes_that_never_blink_may_look_where_they_like():
    units, names = tracked(0.1)
    np.testing.assert_array_equal(without_gaze_in_blinks(units, names, np.arange(100)), units)


def test_shut_eyes_are_looked_at_often_enough_to_be_learnt(data: TrainingSet):
    # The cartoon blinks in every eleventh frame; here it does so once.
    lid = data.maps.names.index("eyeBlinkLeft")
    once = data.units.copy()
    once[6:, [lid, data.maps.names.index("eyeBlinkRight")]] = 0
    rare = replace(data, units=once)
    assert shut(rare).nonzero()[0].tolist() == [5]
    stage = Stage("fuse", 400, ("face",), 1.0, 1.0)
    frames = np.concatenate([Sampler(rare, Settings()).frames(stage, step, 8) for step in range(400)])
    assert 0.06 < (frames == 5).mean() < 0.10
    assert len(np.unique(frames)) == len(data.training)
    # Where they are shut often, or never, nothing is changed.
    never = replace(data, units=np.zeros_like(once))
    assert not shut(never).any()
    assert len(Sampler(never, Settings()).frames(stage, 0, 8)) == 8


def test_pose_vectors_are_rotations_about_camera_axes_and_shifts():
    rng = np.random.default_rng(1)
    turns = rng.normal(0, 0.1, (50, 3))
    poses = np.tile(np.eye(4, dtype=np.float32), (50, 1, 1))
    base = Rotation.from_euler("x", np.pi)
    poses[:, :3, :3] = (Rotation.from_rotvec(turns) * base).as_matrix()
    poses[:, :3, 3] = [0, 0, 1.4] + turns @ np.diag([0.02, 0.03, 0.04])
    statistics = pose_statistics(poses)
    vectors = statistics.vectors(poses)
    rebuilt = Rotation.from_rotvec(vectors[:, :3]).as_matrix() @ statistics.mean[:3, :3]
    np.testing.assert_allclose(rebuilt, poses[:, :3, :3], atol=1e-5)
    np.testing.assert_allclose(vectors[:, 3:] + statistics.mean[:3, 3], poses[:, :3, 3], atol=1e-6)
    np.testing.assert_allclose(np.diag(statistics.coupling), [0.02, 0.03, 0.04], rtol=0.25)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("clip.mp4", "clip.mp4 cannot be read as video"),
        ("labels.npz", "labels.npz cannot be read"),
        ("plate.png", "cannot be read"),
        ("truth.npz", "cannot be read"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, file: str, message: str, damage: str):
    talking_head.write_studio(tmp_path)
    (tmp_path / file).unlink()
    if damage == "garbage":
        (tmp_path / file).write_bytes(b"garbage" * 50)
    with pytest.raises(DatasetInvalid, match=message):
        load(tmp_path)


def test_truth_without_a_part_is_refused_by_its_name(tmp_path: Path):
    talking_head.write_studio(tmp_path)
    with np.load(tmp_path / "truth.npz") as archive:
        kept = {name: archive[name] for name in archive.files if name != "units"}
    np.savez(tmp_path / "truth.npz", **kept)
    with pytest.raises(DatasetInvalid, match=r"truth.npz lacks 'units'"):
        load(tmp_path)


def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path, data: TrainingSet):
    talking_head.write_studio(tmp_path)
    with np.load(tmp_path / "labels.npz") as archive:
        np.savez(tmp_path / "labels.npz", data=archive["data"], offset=archive["offset"][:-1])
    with pytest.raises(DatasetInvalid, match="40 frames, 39 label maps, 40 poses"):
        load(tmp_path)
    with pytest.raises(DatasetInvalid, match="not finite"):
        replace(data, units=np.full_like(data.units, np.nan))
    with pytest.raises(DatasetInvalid, match="no depth"):
        replace(data, depth=np.zeros_like(data.depth))
