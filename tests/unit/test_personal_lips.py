"""Lips of one person: fitted to a recording, heard in a stream, and closed where they must be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model_hosts.talking_gaussian.bundle import Bundle, BundleInvalid
from model_hosts.talking_gaussian.driving.articulation import RESTING, Phone
from model_hosts.talking_gaussian.driving.audio_to_lips import AudioListener, LipNetwork
from model_hosts.talking_gaussian.driving.driver import Driver
from model_hosts.talking_gaussian.driving.personal_lips import (
    CHANNEL_TAPS,
    SPEECH_TAPS,
    Heard,
    PersonalLips,
    closed,
)
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS
from model_hosts.talking_gaussian.driving.state import FrameState
from model_hosts.talking_gaussian.driving.whisper_features import BANDS, FEATURES
from model_hosts.talking_gaussian.training.adaptation import Adaptation, fit_lips
from tests.doubles.avatar import LIP_CODE, make_avatar
from tests.doubles.ears import RATE, Ears, envelopes, voiced

Doubles = npt.NDArray[np.float64]

SECONDS, TRAINING = 18, 370
GAP = np.array([2.0, 0.3, *[0.0] * (LIP_CODE - 2)])
"""The double's opening: a linear function of its lip code, in pixels, 6 when the code is zero."""


def person(strengths: Doubles) -> Doubles:
    """Lip codes `[T, 8]` that follow from the strengths at 100 a second: how this person speaks."""
    frames = strengths[3::4]
    mixing = np.random.default_rng(3).normal(size=(frames.shape[1], LIP_CODE))
    codes = np.tanh((frames - 0.05) @ mixing * 12.0)
    return (codes - codes.mean(0)) / codes.std(0)


@pytest.fixture(scope="module")
def recording() -> tuple[npt.NDArray[np.int16], Doubles]:
    strengths = envelopes(SECONDS, seed=1)
    return voiced(strengths), person(strengths)


@pytest.fixture(scope="module")
def fitted(recording: tuple[npt.NDArray[np.int16], Doubles]) -> Adaptation:
    samples, codes = recording
    return fit_lips(
        samples,
        RATE,
        codes,
        6.0 + codes @ GAP,
        np.arange(TRAINING),
        Ears(),  # type: ignore[arg-type]
        LipNetwork.load(),
    )


@pytest.fixture(scope="module")
def avatar(fitted: Adaptation, recording: tuple[npt.NDArray[np.int16], Doubles]) -> Bundle:
    codes = recording[1]
    shut = codes[np.argsort(codes @ GAP)[:10]].mean(0).astype(np.float32)
    bundle = make_avatar()
    tensors = dict(bundle.tensors) | fitted.lips.tensors() | {"lip.closed": shut}
    return dataclasses.replace(bundle, tensors=tensors)


def drive(avatar: Bundle, samples: npt.NDArray[np.int16], size: int) -> FrameState:
    listener = AudioListener(Ears(), LipNetwork.load(), RATE, PersonalLips.of(avatar))  # type: ignore[arg-type]
    driver = Driver(avatar, 1, RATE, listener)
    pieces = [samples[start : start + size] for start in range(0, len(samples), size)]
    last = len(pieces) - 1
    states = [driver.push(piece, None, index == last) for index, piece in enumerate(pieces)]
    return FrameState.concatenate([*states, driver.finish()])


def test_a_known_person_is_found_again(
    fitted: Adaptation, avatar: Bundle, recording: tuple[npt.NDArray[np.int16], Doubles]
) -> None:
    samples, codes = recording
    found = drive(avatar, samples, len(samples)).lip[TRAINING : len(codes) - 10]
    truth = codes[TRAINING : len(codes) - 10]
    fits = [np.corrcoef(one, other)[0, 1] for one, other in zip(found.T, truth.T, strict=True)]
    assert min(fits) > 0.8
    ratio = (found @ GAP).std() / (truth @ GAP).std()
    assert 0.85 < ratio < 1.15
    assert fitted.opening > 0.85
    assert 0.85 < fitted.opening_ratio < 1.2


@pytest.mark.parametrize("size", [1777, 16000])
def test_the_lips_are_the_same_however_the_speech_is_cut(
    avatar: Bundle, recording: tuple[npt.NDArray[np.int16], Doubles], size: int
) -> None:
    samples = recording[0][: 5 * RATE]
    whole, pieces = drive(avatar, samples, len(samples)), drive(avatar, samples, size)
    np.testing.assert_allclose(pieces.lip, whole.lip, atol=1e-4)


def test_silent_lips_are_closed_and_still(
    avatar: Bundle, recording: tuple[npt.NDArray[np.int16], Doubles]
) -> None:
    silence = np.zeros(3 * RATE, np.int16)
    lip = drive(avatar, np.concatenate([recording[0][: 3 * RATE], silence]), RATE).lip
    assert np.abs(np.diff(lip[:70], axis=0)).max() > 0.2
    np.testing.assert_allclose(lip[90:], np.tile(avatar.tensor("lip.closed"), (len(lip) - 90, 1)), atol=1e-6)


def test_a_short_pause_does_not_close_the_lips_but_a_long_one_does(
    avatar: Bundle, recording: tuple[npt.NDArray[np.int16], Doubles]
) -> None:
    def distance(pause: float) -> Doubles:
        samples = recording[0][: 4 * RATE].copy()
        samples[2 * RATE : round((2 + pause) * RATE)] = 0
        return np.abs(drive(avatar, samples, RATE).lip - avatar.tensor("lip.closed")).max(1)

    assert distance(0.25)[48:58].min() > 0.01
    assert distance(1.2)[58:66].max() < 1e-5


def test_every_bilabial_of_the_phonemes_closes(avatar: Bundle) -> None:
    phones = [Phone("_", 0.0, 0.3)]
    for symbol in "mɑbiɑpumæ":
        phones.append(Phone(symbol, phones[-1].end, phones[-1].end + 0.11, 2))
    phones.append(Phone("_", phones[-1].end, phones[-1].end + 0.4))
    samples = voiced(np.full((round(phones[-1].end * 100), 6), 0.05))
    driver = Driver(avatar, 1, RATE)
    lip = FrameState.concatenate([driver.push(samples, phones, True), driver.finish()]).lip
    lips = PersonalLips.of(avatar)
    assert lips is not None
    opening, shut = lips.opening.of(lip.astype(np.float64)), lips.opening.levels[1]
    for phone in phones:
        frames = slice(int(phone.start * 25) - 1, int(np.ceil(phone.end * 25)) + 1)
        if phone.symbol in "mbp":
            assert opening[frames].min() < shut + 0.05 * (lips.opening.levels[3] - shut)
    assert opening.max() > lips.opening.levels[3]


def heard(count: int, lips: PersonalLips, closing: float) -> Heard:
    features = np.zeros((count, len(SPEECH_TAPS), FEATURES), np.float32)
    channels = np.random.default_rng(5).uniform(0, 1, (count, len(CHANNEL_TAPS), len(CHANNELS)))
    bands = np.full((count, len(SPEECH_TAPS), BANDS), 1e3, np.float32)
    return Heard(features + 1e3, bands, channels, np.full(count, closing))


def test_an_unknown_voice_falls_back_on_the_channels(fitted: Adaptation) -> None:
    """Far from the recording nothing but the channels is left."""
    lips = fitted.lips
    far = heard(40, lips, 0.0)
    expected = far.channels.reshape(40, -1) @ lips.heard_weight + lips.heard_bias
    np.testing.assert_allclose(lips.heard(far), closed(expected, far, lips.opening), atol=1e-5)


def test_a_closure_that_is_heard_shuts_the_lips_unless_they_are_wide_open(fitted: Adaptation) -> None:
    opening = fitted.lips.opening
    code = np.random.default_rng(6).normal(size=(200, LIP_CODE))
    shut, usual = opening.levels[1], opening.levels[3]
    before = opening.of(code)
    after = opening.of(closed(code, heard(200, fitted.lips, 1.0), opening))
    np.testing.assert_allclose(after[before < 0.7 * usual], shut, atol=1e-6)
    wide = np.minimum(before, opening.levels[4])[before > 1.4 * usual]
    np.testing.assert_allclose(after[before > 1.4 * usual], wide, atol=1e-6)
    unheard = opening.of(closed(code, heard(200, fitted.lips, 0.0), opening))
    np.testing.assert_allclose(unheard, np.clip(before, shut, opening.levels[4]), atol=1e-6)


def test_a_mouth_at_rest_has_the_closed_code(avatar: Bundle) -> None:
    lips = PersonalLips.of(avatar)
    assert lips is not None
    at_rest = avatar.tensor("lip.closed")
    np.testing.assert_allclose(lips.spoken(RESTING[None], at_rest)[0], at_rest, atol=1e-6)


def drive_code(lips: PersonalLips, samples: npt.NDArray[np.int16]) -> Doubles:
    listener = AudioListener(Ears(), LipNetwork.load(), RATE, lips)  # type: ignore[arg-type]
    listener.push(samples)
    return listener.lips(0, 60)


def test_the_lips_survive_their_bundle(avatar: Bundle, fitted: Adaptation, tmp_path: Path) -> None:
    avatar.write(tmp_path / "avatar.zip")
    again = PersonalLips.of(Bundle.read(tmp_path / "avatar.zip"))
    lips = PersonalLips.of(avatar)
    assert again is not None
    assert lips is not None
    for name, value in vars(lips).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    # What is stored is as good as what was fitted.
    samples = voiced(envelopes(3.0, seed=9))
    stored, exact = (drive_code(one, samples) for one in (again, fitted.lips))
    np.testing.assert_allclose(stored, exact, atol=0.03)
    assert PersonalLips.of(make_avatar()) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio.heard.bias": None}, r"audio\.heard\.bias is missing"),
        ({"audio.extra": np.zeros(3, np.float32)}, r"audio\.extra is unknown"),
        (
            {"audio.opening.levels": np.zeros(3, np.float32)},
            r"audio\.opening\.levels is \[3\], but must be \[5\]",
        ),
        ({"audio.space.weight": np.zeros((9, 4), np.float32)}, r"audio\.space\.weight is \[9, 4\]"),
    ],
)
def test_lips_that_do_not_fit_are_refused(
    avatar: Bundle, change: dict[str, npt.NDArray[np.float32] | None], message: str
) -> None:
    tensors = {name: value for name, value in (dict(avatar.tensors) | change).items() if value is not None}
    with pytest.raises(BundleInvalid, match=message):
        PersonalLips.of(dataclasses.replace(avatar, tensors=tensors))


def test_too_short_a_recording_is_refused(recording: tuple[npt.NDArray[np.int16], Doubles]) -> None:
    samples, codes = recording
    with pytest.raises(ValueError, match="too few"):
        fit_lips(
            samples,
            RATE,
            codes,
            codes @ GAP,
            np.arange(40),
            Ears(),  # type: ignore[arg-type]
            LipNetwork.load(),
        )
