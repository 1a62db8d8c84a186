"""What is heard in the speech of a recording, with an encoder that only measures loudness."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from model_hosts.talking_gaussian.driving.units import UNIT_INDEX
from model_hosts.talking_gaussian.driving.whisper_features import WhisperEncoder
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.upstream.speech import (
    FEATURES,
    heard_units,
    load_encoder,
    read_speech,
    speech_features,
)

RATE = 16000
_STEP = 320


class LoudnessEncoder:
    """A stand-in for Whisper: each feature is another power of the loudness of its 20 ms."""

    def __init__(self) -> None:
        self._mix = np.random.default_rng(0).normal(size=(40, 512)).astype(np.float32)
        self.silence = np.zeros((80, 512), np.float32)

    def encode(self, samples: np.ndarray) -> np.ndarray:
        pieces = np.asarray(samples)[: 80 * _STEP].reshape(80, _STEP)
        spectrum = np.abs(np.fft.rfft(pieces, axis=1))[:, :40].astype(np.float32)
        return np.log1p(spectrum) @ self._mix


@pytest.fixture
def encoder() -> WhisperEncoder:
    return cast(WhisperEncoder, LoudnessEncoder())


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """Three seconds of babble that grows and falls."""
    rng = np.random.default_rng(1)
    time = np.arange(3 * RATE) / RATE
    return (rng.normal(size=time.size) * 4000 * np.abs(np.sin(7 * time))).astype(np.int16)


def write_wav(path: Path, samples: np.ndarray, rate: int, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(samples, channels).astype("<i2").tobytes())
    return path


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2)])
def test_speech_is_read_as_16_khz_mono(tmp_path: Path, rate: int, channels: int) -> None:
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.int16)
    samples = read_speech(write_wav(tmp_path / "a.wav", tone, rate, channels))
    assert samples.dtype == np.int16
    assert abs(len(samples) - RATE) < 40
    peak = np.argmax(np.abs(np.fft.rfft(samples[: RATE // 2])))
    assert 2 * peak == pytest.approx(440, abs=3)


def test_files_without_speech_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no")
    with pytest.raises(DatasetInvalid, match=r"a\.wav cannot be read as audio"):
        read_speech(tmp_path / "a.wav")
    with pytest.raises(DatasetInvalid, match="cannot be read"):
        read_speech(tmp_path / "none.wav")


def test_heard_units_last_as_long_as_the_pictures(encoder: WhisperEncoder, noise: np.ndarray) -> None:
    units = heard_units(noise, encoder, 80)
    assert units.shape == (80, 52)
    assert units.min() >= 0 and units.max() <= 1
    assert units[:70, UNIT_INDEX["jawOpen"]].std() > 0
    # Five pictures more than there is sound: they repeat the last.
    np.testing.assert_array_equal(units[75:], np.tile(units[74], (5, 1)))


def test_features_are_components_of_unit_deviation(encoder: WhisperEncoder, noise: np.ndarray) -> None:
    features = speech_features(noise, encoder, 75)
    assert features.shape == (150, FEATURES)
    np.testing.assert_allclose(features.std(0), 1, atol=1e-3)
    np.testing.assert_allclose(np.corrcoef(features.T), np.eye(FEATURES), atol=1e-3)


def test_a_directory_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match=r"CTranslate2|no Whisper encoder"):
        load_encoder(tmp_path)
