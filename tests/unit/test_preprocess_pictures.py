"""Labels, background, torso, idle, sync: what is read from pictures and sound of a drawn person."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from model_hosts.talking_gaussian.preprocess.colours import fit_colours, table_index, to_lab
from model_hosts.talking_gaussian.preprocess.idle import find_idle, without_blinks
from model_hosts.talking_gaussian.preprocess.masks import label, learn_materials
from model_hosts.talking_gaussian.preprocess.plate import background, fill_unknown
from model_hosts.talking_gaussian.preprocess.sync import NATURAL, audio_features, measure
from model_hosts.talking_gaussian.preprocess.torso import track_torso
from model_hosts.talking_gaussian.preprocess.truth import held_out_frames, silent_frames
from tests.doubles.speaking_person import SIZE, Person

MOUTH, HEAD = (3,), (1, 2, 3)


@pytest.fixture(scope="module")
def person() -> Person:
    return Person(40)


def _person_mask(person: Person, index: int) -> np.ndarray:
    head, _, _, torso = person.masks(index)
    return ((head | torso) * 255).astype(np.uint8)


def _overlap(labels: np.ndarray, values: tuple[int, ...], truth: np.ndarray) -> float:
    found = np.isin(labels, values)
    return float((found & truth).sum() / (found | truth).sum())


def test_labels_tell_head_hair_mouth_and_clothes_apart(person: Person):
    looks = [(person.picture(k), _person_mask(person, k), person.points(k)) for k in (0, 9, 18, 27)]
    materials = learn_materials(looks)
    wide = int(np.argmax(person.opening))
    for index in (3, 21, wide):
        labels = label(person.picture(index), _person_mask(person, index), person.points(index), materials)
        head, hair, mouth, torso = person.masks(index)
        assert _overlap(labels, HEAD, head) > 0.96
        assert _overlap(labels, (2,), hair) > 0.85
        assert _overlap(labels, (4, 5), torso & ~head) > 0.95
        if index == wide:
            assert _overlap(labels, MOUTH, mouth) > 0.7
        assert not labels[~(head | torso)].any()


def test_a_closed_mouth_shows_no_inside(person: Person):
    index = int(np.argmin(person.opening))
    materials = learn_materials([(person.picture(index), _person_mask(person, index), person.points(index))])
    labels = label(person.picture(index), _person_mask(person, index), person.points(index), materials)
    assert (labels == 3).sum() < 0.001 * SIZE**2


def test_hair_hangs_down_only_where_there_is_hair_above(person: Person):
    picture, mask, points = person.picture(0).copy(), _person_mask(person, 0), person.points(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    left, right = points[234, 0], points[454, 0]
    strand = (columns > left - 22) & (columns < left - 2) & (rows > points[10, 1]) & (rows < points[152, 1])
    line = (columns > right + 1) & (columns < right + 3) & (rows > points[10, 1]) & (rows < points[152, 1])
    picture[strand | line] = (70, 40, 25)
    mask[strand | line] = 255
    materials = learn_materials(
        [(person.picture(k), _person_mask(person, k), person.points(k)) for k in (0, 9)]
    )
    labels = label(picture, mask, points, materials)
    below = rows > points[132, 1] + 4
    assert (labels[strand & below] == 2).mean() > 0.7
    assert (labels[line & below] == 2).mean() < 0.1


def test_colours_are_judged_in_cielab():
    white_black_red = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]], np.uint8)
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]]
    np.testing.assert_allclose(to_lab(white_black_red), expected, atol=0.05)
    samples = np.random.default_rng(0).normal([200, 150, 130], 6, (500, 3)).clip(0, 255).astype(np.uint8)
    model = fit_colours(samples)
    near, far = model.distance[table_index(np.array([[[200, 150, 130], [40, 60, 140]]], np.uint8))][0]
    assert near < 2
    assert far > 100


def test_the_background_is_seen_round_the_person_and_smooth_behind(person: Person):
    frames = range(0, 40, 4)
    pictures = np.stack([person.picture(k) for k in frames])
    masks = np.stack([_person_mask(person, k) for k in frames])
    plate, seen = background(pictures, masks)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    truth = np.stack([60 + rows // 3, 120 + columns // 4, 150 - rows // 4], -1)
    far = gaussian_filter(seen.astype(float), 3) > 0.999
    np.testing.assert_allclose(plate[far], truth[far], atol=1)
    # A smooth background is guessed well even where it is never seen.
    assert np.abs(plate.astype(int) - truth).mean() < 8
    assert not seen[(masks > 0).all(0)].any()


def test_a_background_that_is_never_seen_is_grey():
    grey = fill_unknown(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool))
    assert (grey == 128).all()


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(3, 40), width=st.integers(3, 40), value=st.integers(0, 255), seed=st.integers(0, 999)
)
def test_what_is_unknown_becomes_like_the_known(height: int, width: int, value: int, seed: int):
    known = np.random.default_rng(seed).random((height, width)) < 0.3
    known[0, 0] = True
    picture = np.where(known[..., None], np.uint8(value), np.uint8(255 - value)).repeat(3, 2)
    assert np.abs(fill_unknown(picture, known).astype(int) - value).max() <= 1


def test_the_torso_is_followed_to_a_tenth_of_a_pixel(person: Person):
    key = 12
    _, _, _, torso = person.masks(key)
    torso = torso & (np.mgrid[:SIZE, :SIZE][0] > 214)
    pictures = [person.picture(k) for k in range(40)]
    track = track_torso(pictures, key, pictures[key], torso, lambda done: None)
    moved = person.shift - person.shift[key]
    np.testing.assert_allclose(track[:, :2], moved, atol=0.25)
    assert np.abs(track[:, :2] - moved).mean() < 0.1
    assert np.abs(track[:, 2:]).max() < 0.004
    assert not track[key].any()


def test_a_torso_that_is_not_seen_does_not_move(person: Person):
    pictures = [person.picture(k) for k in range(3)]
    track = track_torso(pictures, 0, pictures[0], np.zeros((SIZE, SIZE), bool), lambda done: None)
    assert not track.any()


def test_the_idle_track_begins_where_it_ends():
    count = 400
    time = np.arange(count) / 25
    still = Person(count)
    poses = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = still.rotation, still.translation
    units = np.abs(np.sin(time[:, None] * np.linspace(0.3, 1.1, 52))).astype(np.float32)
    track = np.stack([np.sin(time), np.cos(time), 0 * time, 0 * time], 1).astype(np.float32)
    silent = (time > 5) & (time < 13)
    mouth = np.arange(52) > 25
    idle = find_idle(poses, units, track, silent, mouth)
    assert 50 <= len(idle.poses) <= 200
    for values in (idle.poses.reshape(len(idle.poses), -1), idle.units, idle.track):
        steps = np.abs(np.diff(values, axis=0)).max(0)
        # The step from the last frame to the first is like any other.
        assert (np.abs(values[0] - values[-1]) <= 1.5 * steps + 2e-3).all()
    assert not np.ptp(idle.units[:, mouth], axis=0).any()
    np.testing.assert_allclose(np.linalg.det(idle.poses[:, :3, :3]), 1, atol=1e-4)


@given(start=st.integers(0, 59), length=st.integers(1, 8))
def test_an_idle_loop_has_no_blinks_wherever_they_were(start: int, length: int):
    time = np.arange(60) / 60 * 2 * np.pi
    open_ = np.tile(0.2 + 0.05 * np.sin(time)[:, None], (1, 52)).astype(np.float32)
    units = open_.copy()
    blink = (start + np.arange(length)) % 60
    units[blink] += np.float32(0.7)
    calm = without_blinks(units)
    # Also at the end of the loop, whose neighbour is its start.
    assert np.abs(calm - open_).max() < 0.06
    assert np.abs(np.diff(np.concatenate([calm, calm[:1]]), axis=0)).max() < 0.03


def test_eyes_that_never_open_are_left_as_they_are():
    shut = np.full((20, 52), 0.9, np.float32)
    np.testing.assert_allclose(without_blinks(shut), shut, atol=1e-6)


def test_a_very_short_recording_has_an_idle_track_too():
    person = Person(10)
    poses = np.tile(np.eye(4, dtype=np.float32), (10, 1, 1))
    poses[:, :3, :3] = person.rotation
    zeros = np.zeros((10, 52), np.float32)
    idle = find_idle(poses, zeros, zeros[:, :4], np.zeros(10, bool), np.ones(52, bool))
    assert 0 < len(idle.poses) <= 10


@pytest.mark.parametrize("delay", [-0.2, 0.0, 0.12, 0.3])
def test_the_delay_of_the_sound_is_measured(delay: float):
    person = Person(500, delay=delay)
    sync = measure(audio_features(person.sound(), None), person.opening)
    assert sync.clear and sync.judged
    assert sync.offset + NATURAL == pytest.approx(delay, abs=0.04)
    assert sync.strength > 0.6 > sync.chance


def test_the_sound_of_somebody_else_is_not_clear():
    sync = measure(audio_features(Person(500, seed=9).sound(), None), Person(500, seed=4).opening)
    assert sync.judged and not sync.clear


def test_a_short_clip_is_not_judged():
    person = Person(100)
    assert not measure(audio_features(person.sound(), None), person.opening).judged


def test_silence_is_away_from_anything_loud():
    rng = np.random.default_rng(0)
    audio = np.zeros(16000 * 6, np.int16)
    audio[32000:64000] = rng.normal(0, 4000, 32000)
    silent = silent_frames(audio, 150)
    assert silent[:44].all() and silent[106:].all()
    assert not silent[46:104].any()


@pytest.mark.parametrize(("count", "first"), [(500, 400), (375, 275), (374, 337), (75, 68), (8, 7)])
def test_the_end_is_held_out(count: int, first: int):
    assert held_out_frames(count).tolist() == list(range(first, count))
