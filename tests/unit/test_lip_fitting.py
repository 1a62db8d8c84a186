"""The parts of the fit of a person's lips: the space of sounds, the spectrum, and the landmarks' figures."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from model_hosts.talking_gaussian.driving.articulation import Phone
from model_hosts.talking_gaussian.driving.whisper_features import BANDS, FEATURES, FeatureStream
from model_hosts.talking_gaussian.training.adaptation import SPEECH_SPACE
from model_hosts.talking_gaussian.training.landmark_metrics import (
    LandmarkDecoder,
    MouthLayout,
    measure_landmarks,
)
from model_hosts.talking_gaussian.training.speech_space import discriminants, sounds_of
from tests.doubles.ears import Ears, envelopes, voiced

Doubles = npt.NDArray[np.float64]

LAYOUT = MouthLayout(upper=2, lower=3, corners=(0, 1), lips=(0, 1, 2, 3))


def mouths(count: int, seed: int) -> Doubles:
    """Landmarks `[T, 5, 2]`: corners, two lips and a chin that open and widen."""
    random = np.random.default_rng(seed)
    opening, width = (np.convolve(random.normal(size=count + 6), np.ones(7) / 3, "valid") for _ in range(2))
    points = np.zeros((count, 5, 2))
    points[:, 0, 0], points[:, 1, 0] = -40 - width, 40 + width
    points[:, 3, 1], points[:, 4, 1] = 8 + opening, 60 + opening
    return points


def test_the_truth_has_perfect_figures() -> None:
    metrics = measure_landmarks(mouths(200, 1) + 5.0, mouths(200, 1), LAYOUT)
    assert metrics.opening == pytest.approx(1.0)
    assert metrics.opening_ratio == pytest.approx(1.0)
    assert metrics.width == pytest.approx(1.0)
    assert metrics.width_ratio == pytest.approx(1.0)
    assert metrics.lag_frames == 0
    assert metrics.distance == pytest.approx(0.0, abs=1e-9)
    assert metrics.distance_in_place == pytest.approx(5.0 * np.sqrt(2.0))


def test_late_small_and_foreign_lips_are_noticed() -> None:
    truth = mouths(300, 1)
    assert measure_landmarks(np.roll(truth, 2, axis=0), truth, LAYOUT).lag_frames == 2
    half = truth.mean(0) + 0.5 * (truth - truth.mean(0))
    assert measure_landmarks(half, truth, LAYOUT).opening_ratio == pytest.approx(0.5)
    foreign = measure_landmarks(mouths(300, 2), truth, LAYOUT)
    assert abs(foreign.opening) < 0.4
    assert foreign.distance > 0.2


def test_landmarks_that_are_linear_in_the_code_are_found_again() -> None:
    random = np.random.default_rng(4)
    codes, basis = random.normal(size=(80, 6)), random.normal(size=(6, 5, 2))
    points = np.tensordot(codes, basis, 1) + 3.0
    found = LandmarkDecoder(codes[:40], points[:40]).landmarks(codes[40:])
    np.testing.assert_allclose(found, points[40:], atol=1e-9)


def test_discriminants_look_where_sounds_differ_and_not_where_voices_do() -> None:
    random = np.random.default_rng(2)
    sounds = random.integers(0, 4, 4000)
    features = random.normal(size=(4000, 10)) * np.array([1.0, 1.0, 9.0, *[1.0] * 7])
    features[:, 0] += 3.0 * (sounds % 2)
    features[:, 1] += 3.0 * (sounds // 2)
    found = discriminants(features, sounds, 3)
    power = (found**2).sum(1)
    assert power[:2].sum() > 0.9 * power.sum()
    # Only two directions tell four such sounds apart.
    assert (found[:, 2] ** 2).sum() < 0.05 * (found[:, 0] ** 2).sum()


def test_sounds_are_at_the_features_of_their_phonemes() -> None:
    found = sounds_of([Phone("_", 0.0, 0.1), Phone("m", 0.1, 0.2), Phone("A", 0.2, 0.4)], 30)
    assert len(set(found[:5])) == len(set(found[5:10])) == 1
    assert len(set(found[10:20])) == 2
    assert (found[20:] == -1).all()


def test_the_shipped_space_says_what_it_was_made_of() -> None:
    with safetensors.safe_open(SPEECH_SPACE, "numpy") as file:
        weight = file.get_tensor("weight")
        metadata = {name: json.loads(value) for name, value in file.metadata().items()}
    assert weight.shape[0] == FEATURES
    assert np.isfinite(weight).all()
    assert metadata["encoder"] == "whisper-base"
    assert metadata["voices"] == 30
    assert metadata["moments"] > 50_000


def test_the_spectrum_knows_which_tone_sounds() -> None:
    strengths = np.zeros((200, 6))
    strengths[:100, 0] = strengths[100:, 5] = 0.1
    stream = FeatureStream(Ears(), 16000)  # type: ignore[arg-type]
    stream.push(voiced(strengths))
    found = stream.spectrum(0, 100)
    assert found.shape == (100, BANDS)
    low, high = found[5:45].mean(0).argmax(), found[55:95].mean(0).argmax()
    assert low < 4
    assert high > 10


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=8), st.sampled_from([16000, 24000]))
@settings(max_examples=6, deadline=None)
def test_the_spectrum_does_not_depend_on_the_cuts(cuts: list[int], rate: int) -> None:
    samples = voiced(envelopes(2.0 * rate / 16000, seed=8))
    whole, pieces = (FeatureStream(Ears(), rate) for _ in range(2))  # type: ignore[arg-type]
    whole.push(samples)
    expected = whole.spectrum(0, 60)
    found, given_out, start = [], 0, 0
    for size in [*cuts, len(samples)]:
        pieces.push(samples[start : start + size])
        start = min(len(samples), start + size)
        ready = min(60, start * 50 // rate - 31)
        if ready > given_out:
            found.append(pieces.spectrum(given_out, ready))
            given_out = ready
            pieces.forget(given_out)
    assert given_out == 60
    np.testing.assert_array_equal(np.concatenate(found), expected)
