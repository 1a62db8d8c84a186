"""The mouth found in audio alone: features of a stream, the network, and closed lips in silence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from model_hosts.talking_gaussian.driving.animator import FaceAnimator, FaceTrack, Utterance
from model_hosts.talking_gaussian.driving.articulation import lip_gap
from model_hosts.talking_gaussian.driving.audio_to_lips import NETWORK, REACH, AudioListener, LipNetwork
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS
from model_hosts.talking_gaussian.driving.whisper_features import (
    AHEAD,
    FEATURES,
    HOP,
    PAST,
    FeatureStream,
    log_mel,
    mel_filters,
)

WINDOW = PAST + HOP + AHEAD
MARGIN = 120


class Ears:
    """An encoder whose features are the samples' means, so that time can be read off them."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, samples: npt.ArrayLike) -> npt.NDArray[np.float32]:
        self.calls += 1
        heard = np.asarray(samples)[MARGIN : MARGIN + WINDOW * 320]
        assert len(np.asarray(samples)) == WINDOW * 320 + 2 * MARGIN
        return np.repeat(heard.reshape(WINDOW, 320).mean(1, keepdims=True), FEATURES, 1).astype(np.float32)

    @property
    def silence(self) -> npt.NDArray[np.float32]:
        return np.zeros((WINDOW, FEATURES), np.float32)


def stream_of(rate: int) -> FeatureStream:
    return FeatureStream(Ears(), rate)  # type: ignore[arg-type]


def ramp(seconds: float, rate: int) -> npt.NDArray[np.int16]:
    return (3000 + 4000 * np.arange(round(seconds * rate)) / rate).astype(np.int16)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 44100, 48000])
def test_features_are_at_their_time_at_any_rate(rate: int) -> None:
    stream = stream_of(rate)
    stream.push(ramp(3.0, rate))
    found = stream.features(10, 90)[:, 0] * 32768
    # Feature i is centred on second (i + 0.5) / 50.
    np.testing.assert_allclose(found, 3000 + 4000 * (np.arange(10, 90) + 0.5) / 50, rtol=0.01)


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=12), st.sampled_from([16000, 24000]))
@settings(max_examples=25, deadline=None)
def test_features_do_not_depend_on_the_cuts(cuts: list[int], rate: int) -> None:
    samples = np.random.default_rng(1).integers(-9000, 9000, 3 * rate).astype(np.int16)
    whole, pieces = stream_of(rate), stream_of(rate)
    whole.push(samples)
    expected = whole.features(0, 100)
    found, given_out, start = [], 0, 0
    for size in [*cuts, len(samples)]:
        pieces.push(samples[start : start + size])
        start = min(len(samples), start + size)
        ready = min(100, start * 50 // rate - HOP - AHEAD - 1)
        if ready > given_out:
            found.append(pieces.features(given_out, ready))
            given_out = ready
            pieces.forget(given_out)
    np.testing.assert_array_equal(np.concatenate(found), expected[:given_out])
    assert given_out == 100


def test_silence_is_not_encoded() -> None:
    ears = Ears()
    stream = FeatureStream(ears, 16000)  # type: ignore[arg-type]
    stream.push(np.zeros(80000, np.int16))
    assert not stream.features(0, 200).any()
    assert ears.calls == 0


def test_the_mel_spectrogram_finds_a_tone() -> None:
    filters = mel_filters()
    assert filters.shape == (80, 201)
    assert (filters.sum(1) > 0).all()
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    mel = log_mel(tone, filters)
    assert mel.shape == (80, 98)
    centres = (filters @ np.arange(201)) / filters.sum(1) * 40
    assert abs(centres[mel.mean(1).argmax()] - 1000) < 60
    # Whisper's scale: 80 dB below the loudest is cut, and 4 decades make one.
    assert mel.max() - mel.min() <= 2.0 + 1e-6


def test_the_network_sees_only_its_reach() -> None:
    network = LipNetwork.load()
    features = np.random.default_rng(2).normal(size=(60 + 2 * REACH, FEATURES)).astype(np.float32)
    whole = network.run(features)
    assert whole.shape == (60, len(CHANNELS))
    assert whole.min() >= 0.0
    assert whole.max() <= 1.0
    np.testing.assert_allclose(network.run(features[20 : 21 + 2 * REACH]), whole[20:21], atol=1e-5)


def test_the_shipped_network_says_how_good_it_is() -> None:
    network = LipNetwork.load()
    assert NETWORK.stat().st_size < 3 << 20
    assert network.metadata["encoder"] == "whisper-base"
    held_out = network.metadata["metrics"]["held_out"]
    assert held_out["opening"] > 0.9
    assert held_out["bilabial_recall"] > 0.95
    assert held_out["silence"] > 0.97
    assert abs(held_out["lag_frames"]) <= 1


def test_another_shape_is_refused(tmp_path) -> None:
    path = tmp_path / "lips.safetensors"
    tensors = safetensors.numpy.load_file(NETWORK)
    safetensors.numpy.save_file(tensors | {"out.weight": np.zeros((3, 112), np.float16)}, path)
    with pytest.raises(ValueError, match="another shape"):
        LipNetwork.load(path)
    del tensors["conv.1.bias"]
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(ValueError, match=r"lacks 'conv\.1\.bias'"):
        LipNetwork.load(path)


def listened(samples: npt.NDArray[np.int16], size: int) -> FaceTrack:
    stream = FaceAnimator(1, 16000, AudioListener(Ears(), LipNetwork.load(), 16000))  # type: ignore[arg-type]
    pieces = [samples[start : start + size] for start in range(0, len(samples), size)]
    last = len(pieces) - 1
    tracks = [stream.push(Utterance(piece, None, index == last)) for index, piece in enumerate(pieces)]
    return FaceTrack.concatenate([*tracks, stream.finish()])


def test_a_stream_of_audio_gives_all_its_frames_and_closes_in_silence() -> None:
    rate = 16000
    loud = np.random.default_rng(3).integers(-6000, 6000, 2 * rate)
    samples = np.concatenate([np.zeros(rate), loud, np.zeros(2 * rate)]).astype(np.int16)
    track = listened(samples, 16000)
    assert len(track) == 125
    gap = lip_gap(track.units)
    assert gap[:18].max() < 0.035
    assert gap[82:].max() < 0.035


@pytest.mark.parametrize("size", [333, 7001, 40000])
def test_audio_gives_the_same_face_however_it_is_cut(size: int) -> None:
    swell = np.sin(np.arange(64000) / 4000) ** 2
    samples = (np.random.default_rng(4).normal(0, 3000, 64000) * swell).astype(np.int16)
    whole, pieces = listened(samples, len(samples)), listened(samples, size)
    np.testing.assert_allclose(pieces.units, whole.units, atol=1e-5)
    np.testing.assert_allclose(pieces.pose, whole.pose, atol=1e-5)
