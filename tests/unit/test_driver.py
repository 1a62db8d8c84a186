"""An avatar driven by a stream of speech: the conditions of its frames."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from model_hosts.talking_gaussian.bundle import Bundle, BundleInvalid
from model_hosts.talking_gaussian.driving.articulation import Phone
from model_hosts.talking_gaussian.driving.driver import Driver, rotation_vectors
from model_hosts.talking_gaussian.driving.idle import IdleMotion
from model_hosts.talking_gaussian.driving.state import FrameState
from model_hosts.talking_gaussian.driving.units import UNIT_INDEX
from tests.doubles.avatar import make_avatar

RATE = 24000
COUPLING = [[0.0, -0.1, 0.0], [0.1, 0.0, 0.02], [0.0, 0.03, 0.0]]


@pytest.fixture(scope="module")
def avatar() -> Bundle:
    bundle = make_avatar()
    drivers = bundle.info.drivers | {"pose_coupling": COUPLING, "track_mean": [0.5, -0.8, 0.0, 0.0]}
    # As in trained avatars, the lips depend on the units of the lower face alone.
    upper = [index for name, index in UNIT_INDEX.items() if name.startswith(("eye", "brow"))]
    to_lip = bundle.tensor("units.to_lip").copy()
    to_lip[upper] = 0.0
    return dataclasses.replace(
        bundle,
        info=dataclasses.replace(bundle.info, drivers=drivers),
        tensors=dict(bundle.tensors) | {"units.to_lip": to_lip},
    )


def speech(text: str) -> tuple[np.ndarray, list[Phone]]:
    phones = [Phone("_", 0.0, 0.3)]
    for symbol in text:
        start = phones[-1].end
        phones.append(Phone(symbol, start, start + 0.1, 2))
    phones.append(Phone("_", phones[-1].end, phones[-1].end + 0.4))
    count = round(phones[-1].end * RATE)
    samples = 8000 * np.sin(2 * np.pi * 120 * np.arange(count) / RATE)
    samples[: round(0.3 * RATE)] = 0
    samples[-round(0.4 * RATE) :] = 0
    return samples.astype(np.int16), phones


def drive(avatar: Bundle, seed: int, texts: list[str]) -> FrameState:
    driver = Driver(avatar, seed, RATE)
    return FrameState.concatenate([*(driver.push(*speech(text), True) for text in texts), driver.finish()])


def test_every_frame_has_its_conditions(avatar: Bundle) -> None:
    texts = ["mɑmi", "bupɛ"]
    state = drive(avatar, 1, texts)
    count = math.ceil(sum(len(speech(text)[0]) for text in texts) * 25 / RATE)
    assert len(state) == count
    assert state.lip.shape == (count, avatar.info.lip_code)
    assert state.expression.shape == (count, len(avatar.info.expression_names))
    assert state.pose.shape == (count, 6)
    assert state.torso_track.shape == (count, 4)
    for values in (state.lip, state.expression, state.pose, state.torso_track):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()


def test_a_silent_mouth_has_the_closed_lip_code_but_for_its_smile(avatar: Bundle) -> None:
    state = drive(avatar, 1, ["mɑmi"])
    smiling = [index for name, index in UNIT_INDEX.items() if "Smile" in name or "Squint" in name]
    directions = avatar.tensor("units.to_lip")[[*smiling, UNIT_INDEX["mouthClose"]]]
    off = state.lip - avatar.tensor("lip.closed")
    # How far it is from any mixture of the closed code and a smile.
    smile, *_ = np.linalg.lstsq(directions.T, off.T, rcond=None)
    rest = np.linalg.norm(off - (directions.T @ smile).T, axis=1)
    assert rest[2:5].max() < 0.2
    assert rest.max() > 0.6


def test_the_head_turns_about_the_neck_and_stays_in_its_range(avatar: Bundle) -> None:
    state = drive(avatar, 3, ["mɑmibupɛ"] * 20)
    turn, shift = state.pose[:, :3], state.pose[:, 3:]
    np.testing.assert_allclose(shift, turn @ np.array(COUPLING).T, atol=1e-6)
    assert (np.abs(turn) < 2.6 * avatar.tensor("pose.std")[:3]).all()
    assert turn.std(0).min() > 0.003


def test_an_avatar_that_never_moved_is_not_made_to_move(avatar: Bundle) -> None:
    still = dataclasses.replace(avatar, tensors=dict(avatar.tensors) | {"pose.std": np.zeros(6, np.float32)})
    assert np.abs(drive(still, 3, ["mɑmi"]).pose).max() < 1e-5


def test_a_recorded_face_stays_in_what_was_seen_of_it_about_its_own_rest(avatar: Bundle) -> None:
    free = drive(avatar, 3, ["mɑmibupɛ"] * 20).expression
    size = free.shape[1]
    low, high = np.full(size, -0.1), np.full(size, 0.2)
    info = dataclasses.replace(
        avatar.info, drivers={**avatar.info.drivers, "expression_range": [low.tolist(), high.tolist()]}
    )
    rest = avatar.tensor("units.mean") @ avatar.tensor("units.to_expression")
    bound = drive(dataclasses.replace(avatar, info=info), 3, ["mɑmibupɛ"] * 20).expression
    np.testing.assert_allclose(bound, np.clip(free + rest, low, high), atol=1e-5)
    assert np.abs(free + rest).max() > 0.3


def test_the_torso_breathes_about_its_mean(avatar: Bundle) -> None:
    track = drive(avatar, 3, ["mɑmibupɛ"] * 20).torso_track
    assert np.abs(track[:, 1] + 0.8).max() <= 1.51
    assert track[:, 1].std() > 0.5
    np.testing.assert_allclose(track[:, [0, 2, 3]], [[0.5, 0.0, 0.0]] * len(track), atol=1e-6)


def test_a_bundle_without_driver_facts_still_moves() -> None:
    assert len(drive(make_avatar(), 1, ["mɑmi"])) > 0


def resting(avatar: Bundle, frames: int = 60) -> Bundle:
    """The avatar with an idle loop of this length: head and shoulders circle, brows rise and fall."""
    turn = 2 * np.pi * np.arange(frames) / frames
    pose, units, track = np.zeros((frames, 6)), np.full((frames, 52), 0.05), np.zeros((frames, 4))
    pose[:, 0], pose[:, 1], pose[:, 3] = 0.02 * np.sin(turn), 0.02 * np.cos(turn), 0.001 * np.sin(turn)
    track[:, 0] = 2.0 * np.sin(turn)
    units[:, UNIT_INDEX["browInnerUp"]] = 0.3 + 0.1 * np.sin(turn)
    idle = IdleMotion(*(value.astype(np.float32) for value in (pose, units, track)))
    return dataclasses.replace(avatar, tensors={**avatar.tensors, **idle.tensors()})


def silence(avatar: Bundle, seconds: float, pieces: int = 1) -> FrameState:
    driver = Driver(avatar, 3, RATE)
    length = seconds / pieces
    quiet = np.zeros(round(length * RATE), np.int16)
    parts = [driver.push(quiet, [Phone("_", 0.0, length)], False) for _ in range(pieces)]
    return FrameState.concatenate([*parts, driver.finish()])


def test_a_recorded_person_moves_as_recorded_without_a_jump(avatar: Bundle) -> None:
    bundle = resting(avatar)
    state = drive(bundle, 3, ["mɑmibupɛ"] * 20)
    track = bundle.tensor("idle.track")
    largest = np.abs(np.diff(np.concatenate([track, track[:1]]), axis=0)).max(0)
    # How lively it is changes too, but slowly.
    assert (np.abs(np.diff(state.torso_track, axis=0)) <= 1.2 * largest + 0.05).all()
    assert state.torso_track[:, 0].max() > 1.5
    # The end of the loop is no place that one would notice.
    steps = np.abs(np.diff(state.pose[:, :3], axis=0)).max(1)
    seams = steps[59::60]
    assert seams.max() <= np.quantile(steps, 0.99)
    assert (np.abs(state.pose[:, :3]) < 2.6 * avatar.tensor("pose.std")[:3]).all()


def test_in_silence_it_moves_less_but_never_stops(avatar: Bundle) -> None:
    quiet = silence(resting(avatar), 8.0)
    spoken = drive(resting(avatar), 3, ["mɑmibupɛ"] * 20)
    assert 0.2 < np.ptp(quiet.torso_track[50:, 0]) / np.ptp(spoken.torso_track[50:, 0]) < 0.6
    moved = np.abs(np.diff(quiet.torso_track[:, 0]))
    assert np.convolve(moved, np.ones(25), "valid").min() > 0.1


def test_idle_motion_does_not_depend_on_how_speech_is_cut(avatar: Bundle) -> None:
    whole, cut = (silence(resting(avatar), 4.0, pieces) for pieces in (1, 8))
    np.testing.assert_array_equal(whole.pose, cut.pose)
    np.testing.assert_array_equal(whole.torso_track, cut.torso_track)


def test_the_brows_of_a_recorded_person_rest_where_they_were_recorded(avatar: Bundle) -> None:
    brow = UNIT_INDEX["browInnerUp"]
    # In this avatar each of the first units is an expression of its own, four times as large.
    free, recorded = (silence(bundle, 4.0).expression[:, brow] for bundle in (avatar, resting(avatar)))
    assert abs((recorded - free).mean() / 4 - 0.25) < 0.1


@pytest.mark.parametrize("name", ["pose", "units", "track"])
def test_idle_motion_that_does_not_fit_is_refused(avatar: Bundle, name: str) -> None:
    bundle = resting(avatar)
    tensors = {key: value for key, value in bundle.tensors.items() if key != f"idle.{name}"}
    with pytest.raises(BundleInvalid, match=f"idle.{name} is missing"):
        Driver(dataclasses.replace(bundle, tensors=tensors), 1, RATE)
    short = {**bundle.tensors, f"idle.{name}": bundle.tensor(f"idle.{name}")[:, :-1]}
    with pytest.raises(BundleInvalid, match=f"idle.{name}"):
        Driver(dataclasses.replace(bundle, tensors=short), 1, RATE)
    unknown = {**bundle.tensors, "idle.lip": bundle.tensor("idle.pose")}
    with pytest.raises(BundleInvalid, match=r"idle\.lip is unknown"):
        Driver(dataclasses.replace(bundle, tensors=unknown), 1, RATE)


def test_a_blink_of_a_recorded_person_goes_as_far_as_their_lid_was_seen_to(avatar: Bundle) -> None:
    names = ("blinkLeft", "blinkRight", *avatar.info.expression_names[2:])
    size = len(names)
    low, high = np.full(size, -9.0), np.full(size, 9.0)
    high[:2] = 2.5
    info = dataclasses.replace(
        avatar.info,
        expression_names=names,
        drivers={**avatar.info.drivers, "expression_range": [low.tolist(), high.tolist()]},
    )
    to_expression = np.zeros_like(avatar.tensor("units.to_expression"))
    # A tracker's lid: 0.2 of a unit is all that it was ever seen to move.
    to_expression[UNIT_INDEX["eyeBlinkLeft"], 0] = to_expression[UNIT_INDEX["eyeBlinkRight"], 1] = 12.5
    tensors = {**avatar.tensors, "units.to_expression": to_expression}
    lids = drive(dataclasses.replace(avatar, info=info, tensors=tensors), 3, ["mɑmibupɛ"] * 20).expression[
        :, 0
    ]
    assert lids.max() == pytest.approx(2.5, abs=0.01)
    # The way down takes its time: the first frame of a blink is not a shut eye.
    first = np.nonzero((lids[1:] > 1.3) & (lids[:-1] <= 1.3))[0] + 1
    assert len(first) > 3
    assert (lids[first] < 2.45).mean() > 0.5


def test_states_can_be_cut_and_joined(avatar: Bundle) -> None:
    state = drive(avatar, 1, ["mɑmi"])
    empty = FrameState.empty(avatar.info.lip_code, len(avatar.info.expression_names))
    joined = FrameState.concatenate([state[:5], empty, state[5:]])
    np.testing.assert_array_equal(joined.lip, state.lip)
    assert len(empty) == 0


@pytest.mark.parametrize(
    ("degrees", "nose"),
    [((20, 0, 0), (1, 0)), ((-20, 0, 0), (-1, 0)), ((0, 20, 0), (0, 1)), ((0, -20, 0), (0, -1))],
)
def test_rotation_vectors_turn_the_nose_the_right_way(
    degrees: tuple[int, int, int], nose: tuple[int, int]
) -> None:
    """In camera axes (x right, y down) the nose points at the viewer, along -z."""
    moved = rotation_matrix(rotation_vectors([degrees])[0]) @ (0, 0, -1)
    np.testing.assert_allclose(moved[:2], np.sin(np.radians(20)) * np.array(nose), atol=1e-9)


def test_rotation_vectors_compose_roll_then_pitch_then_yaw() -> None:
    yaw, pitch, roll = np.radians([14, -9, 21])
    flip = np.diag([1.0, -1.0, -1.0])
    about_y = rotation_matrix(np.array([0, yaw, 0]))
    about_x = rotation_matrix(np.array([pitch, 0, 0]))
    about_z = rotation_matrix(np.array([0, 0, roll]))
    expected = flip @ about_y @ about_x @ about_z @ flip
    found = rotation_matrix(rotation_vectors([[14, -9, 21]])[0])
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_array_equal(rotation_vectors([[0, 0, 0]]), [[0, 0, 0]])


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Rodrigues' formula."""
    angle = np.linalg.norm(vector)
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
