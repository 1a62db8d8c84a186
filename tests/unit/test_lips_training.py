"""Training data and figures of the lip network, without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model_hosts.talking_gaussian.driving.articulation import Phone
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS
from model_hosts.talking_gaussian.driving.whisper_features import AHEAD, FEATURES, HOP, PAST
from model_hosts.talking_gaussian.training.lips_data import (
    SAMPLE_RATE,
    Example,
    Speech,
    augmented,
    example,
    joined,
    read_examples,
    read_speech,
    write_examples,
)
from model_hosts.talking_gaussian.training.lips_metrics import best_lag, measure
from tools.lips.sentences import sentences

WINDOW = PAST + HOP + AHEAD


class Ears:
    """An encoder that hears nothing."""

    silence = np.zeros((WINDOW, FEATURES), np.float32)

    def encode(self, samples: npt.ArrayLike) -> npt.NDArray[np.float32]:
        return self.silence


class Oracle:
    """A network that knows the answers."""

    def __init__(self, answers: npt.NDArray[np.float64]) -> None:
        self.answers = answers

    def run(self, features: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return self.answers


def spoken(text: str, voice: str = "a") -> Speech:
    phones = [Phone("_", 0.0, 0.3)]
    for symbol in text:
        phones.append(Phone(symbol, phones[-1].end, phones[-1].end + 0.1, 0))
    phones.append(Phone("_", phones[-1].end, phones[-1].end + 0.3))
    count = round(phones[-1].end * SAMPLE_RATE)
    return Speech(0.1 * np.sin(np.arange(count) / 20), tuple(phones), voice, False)


def test_joined_sentences_tile_their_samples() -> None:
    whole = joined([spoken("mɑ"), spoken("bi"), spoken("fu")], np.random.default_rng(1))
    ends = [0.0, *(phone.end for phone in whole.phones)]
    np.testing.assert_allclose([phone.start for phone in whole.phones], ends[:-1], atol=1e-9)
    assert abs(ends[-1] - len(whole.samples) / SAMPLE_RATE) < 1e-3


@pytest.mark.parametrize("seed", range(6))
def test_augmented_speech_stays_in_step_with_its_phonemes(seed: int) -> None:
    speech = spoken("mɑbifu")
    changed = augmented(speech, np.random.default_rng(seed))
    assert abs(changed.phones[-1].end - len(changed.samples) / SAMPLE_RATE) < 2e-3
    assert np.isfinite(changed.samples).all()
    assert 0.005 < np.abs(changed.samples).max() <= 1.0


def test_targets_are_the_articulation_at_the_features(tmp_path: Path) -> None:
    made = example(spoken("mɑ"), Ears(), clean=True)  # type: ignore[arg-type]
    assert made.features.shape == (len(made.targets), FEATURES)
    close, jaw = (made.targets[:, CHANNELS.index(name)] for name in ("close", "jaw"))
    # m lasts from 0.3 to 0.4 s: features 15 to 20 of 50 a second.
    assert 14 <= close.argmax() <= 20
    assert jaw.argmax() > 20
    write_examples(tmp_path / "features.npz", [made, made])
    again = read_examples(tmp_path / "features.npz")
    assert len(again) == 2
    np.testing.assert_array_equal(again[1].targets, made.targets)
    assert again[0].phones == made.phones


def test_a_perfect_network_gets_perfect_figures() -> None:
    speech = spoken("mɑbizubɑmupə" * 2)
    made = example(speech, Ears(), clean=True)  # type: ignore[arg-type]
    exact = measure(Oracle(made.targets.astype(np.float64)), [made])  # type: ignore[arg-type]
    assert exact.opening == exact.jaw == 1.0
    assert exact.bilabial_recall == exact.bilabial_precision == exact.silence == 1.0
    assert exact.lag_frames == 0


def test_figures_notice_open_lips_and_lateness() -> None:
    made = example(spoken("mɑbizubɑmupə" * 3), Ears(), clean=True)  # type: ignore[arg-type]
    late = np.roll(made.targets.astype(np.float64), 4, axis=0)
    assert measure(Oracle(late), [made]).lag_frames == 2  # type: ignore[arg-type]
    never = made.targets.astype(np.float64).copy()
    never[:, CHANNELS.index("close")] = 0.0
    never[:, CHANNELS.index("jaw")] += 0.1
    assert measure(Oracle(never), [made]).bilabial_recall < 0.5  # type: ignore[arg-type]


def test_lag_is_signed() -> None:
    wave = np.sin(np.arange(200) / 7)
    assert best_lag(np.roll(wave, 3), wave) == 3
    assert best_lag(np.roll(wave, -2), wave) == -2


def test_a_file_of_the_corpus_is_read(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "0.npz",
        samples=np.full(2400, 16384, np.int16),
        symbols=np.array(["_", "m"]),
        times=np.array([[0.0, 0.05], [0.05, 0.1]]),
        stress=np.array([0, 0]),
        voice="af_heart",
        held_out=True,
    )
    speech = read_speech(tmp_path / "0.npz")
    assert speech.samples[0] == 0.5
    assert speech.phones[1] == Phone("m", 0.05, 0.1, 0)
    assert speech.held_out
    assert isinstance(example(speech, Ears(), clean=False), Example)  # type: ignore[arg-type]


@pytest.mark.parametrize(("language", "count"), [("en", 300), ("zh", 200)])
def test_sentences_are_many_and_follow_from_the_seed(language: str, count: int) -> None:
    made = sentences(language, count, 1)
    assert len(set(made)) == count
    assert made == sentences(language, count, 1)
    assert not any("{" in text or "|" in text for text in made)
