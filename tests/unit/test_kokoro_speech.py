"""Kokoro's symbols to phonemes, pauses, levels and parts; without the model."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_hosts.kokoro.loudness import TARGET_DB, level, speech_level
from model_hosts.kokoro.pauses import settle, shorten
from model_hosts.kokoro.phonemes import SAMPLES_PER_FRAME, SILENCE, Phoneme, earlier, fold
from model_hosts.kokoro.splitting import MAX_SYMBOLS, split
from model_hosts.kokoro.symbols import SYMBOLS
from model_hosts.kokoro.voices import VoiceFiles, voice_of

symbols = st.text(st.sampled_from(sorted(SYMBOLS)), max_size=60)


@st.composite
def spoken(draw: st.DrawFn) -> tuple[str, list[int]]:
    text = draw(symbols)
    size = len(text) + 2
    return text, draw(st.lists(st.integers(0, 20), min_size=size, max_size=size))


def tiles(phonemes: list[Phoneme], frames: int) -> bool:
    borders = [0, *(phoneme.end for phoneme in phonemes)]
    return borders == [*(phoneme.start for phoneme in phonemes), frames] and all(
        phoneme.start < phoneme.end for phoneme in phonemes
    )


@given(spoken())
def test_phonemes_tile_the_frames(case: tuple[str, list[int]]) -> None:
    text, frames = case
    folded = fold(text, frames)
    assert tiles(folded, sum(frames)) if sum(frames) else folded == []


@given(spoken())
def test_no_silence_follows_a_silence_and_marks_are_no_phonemes(case: tuple[str, list[int]]) -> None:
    folded = fold(*case)
    for phoneme, after in itertools.pairwise(folded):
        assert (phoneme.symbol, after.symbol) != (SILENCE, SILENCE)
    for phoneme in folded:
        assert len(phoneme.symbol) == 1
        assert phoneme.symbol not in "ˈˌːʰʲ↓→↗↘ .,;:!?"
        assert phoneme.stress in {0, 1, 2}
        assert not (phoneme.symbol == SILENCE and phoneme.stress)


def test_marks_are_folded() -> None:
    assert fold("hˈɛlpː ˌI, m↗.", [4, 1, 2, 3, 1, 1, 1, 2, 1, 5, 2, 1, 3, 2, 4, 6]) == [
        Phoneme("_", 0, 4),
        Phoneme("h", 4, 5),
        Phoneme("ɛ", 5, 10, 2),
        Phoneme("l", 10, 11),
        Phoneme("p", 11, 15),
        Phoneme("I", 15, 21, 1),
        Phoneme("_", 21, 24),
        Phoneme("m", 24, 29),
        Phoneme("_", 29, 39),
    ]


def test_borders_move_earlier_and_every_phoneme_keeps_a_frame() -> None:
    late = [Phoneme("_", 0, 2, 0), Phoneme("h", 2, 3, 0), Phoneme("I", 3, 9, 2), Phoneme("_", 9, 14, 0)]
    assert earlier(late, 2) == [
        Phoneme("_", 0, 1, 0),
        Phoneme("h", 1, 2, 0),
        Phoneme("I", 2, 7, 2),
        Phoneme("_", 7, 14, 0),
    ]
    assert earlier([], 2) == []


def test_durations_must_fit() -> None:
    with pytest.raises(ValueError, match="5 durations"):
        fold("abc", [1, 2, 3])


@st.composite
def heard(draw: st.DrawFn) -> tuple[list[Phoneme], np.ndarray]:
    text, frames = draw(spoken())
    phonemes = fold(text, frames)
    total = sum(frames)
    peaks = draw(st.lists(st.sampled_from([0.0, 0.002, 0.005, 0.3]), min_size=total, max_size=total))
    return phonemes, np.array(peaks, np.float32)


@given(heard())
def test_settled_phonemes_tile_the_same_frames(case: tuple[list[Phoneme], np.ndarray]) -> None:
    phonemes, peaks = case
    settled = settle(phonemes, peaks)
    assert [(phoneme.symbol, phoneme.stress) for phoneme in settled] == [
        (phoneme.symbol, phoneme.stress) for phoneme in phonemes
    ]
    assert tiles(settled, len(peaks)) if len(peaks) else settled == []


@given(heard())
def test_a_shortened_piece_loses_only_silence(case: tuple[list[Phoneme], np.ndarray]) -> None:
    phonemes, peaks = case
    if not phonemes:
        return
    audio = np.repeat(peaks, SAMPLES_PER_FRAME)
    piece = shorten(audio, phonemes)
    assert tiles(piece.phonemes, len(piece.audio) // SAMPLES_PER_FRAME)
    assert len(piece.audio) % SAMPLES_PER_FRAME == 0
    assert np.count_nonzero(piece.audio > 0.003) == np.count_nonzero(audio > 0.003)


def test_a_last_sound_ends_where_it_is_no_longer_heard() -> None:
    phonemes = [Phoneme("_", 0, 12), Phoneme("u", 12, 40, 2), Phoneme("_", 40, 60)]
    peaks = np.zeros(60, np.float32)
    peaks[10:22] = 0.4
    piece = shorten(np.repeat(peaks, SAMPLES_PER_FRAME), phonemes)
    # Heard from 10 to 22; 4 frames stay before it and 8 after.
    assert piece.phonemes == [Phoneme("_", 0, 4), Phoneme("u", 4, 16, 2), Phoneme("_", 16, 24)]
    assert len(piece.audio) == 24 * SAMPLES_PER_FRAME


def test_silence_alone_stays_as_it_is() -> None:
    audio = np.zeros(30 * SAMPLES_PER_FRAME, np.float32)
    assert len(shorten(audio, [Phoneme("_", 0, 30)]).audio) == len(audio)


def test_voices_are_equally_loud_and_never_clip() -> None:
    generator = np.random.default_rng(1)
    quiet = (generator.standard_normal(48_000) * 10 ** (-25.6 / 20)).clip(-0.5, 0.5).astype(np.float32)
    assert speech_level(level(quiet, "af_nova")) == pytest.approx(TARGET_DB, abs=0.3)
    peaky = quiet.copy()
    peaky[1000] = 0.9
    assert np.abs(level(peaky, "af_nova")).max() == pytest.approx(0.95, abs=1e-6)
    assert not level(np.zeros(10, np.float32), "af_nova").any()


@given(st.lists(symbols, max_size=12), st.sampled_from([" ", ". ", "! ", ", ", ""]))
def test_parts_lose_nothing_and_fit(words: list[str], between: str) -> None:
    text = between.join(words)
    parts = split(text)
    assert re.sub(r"\s", "", "".join(parts)) == re.sub(r"\s", "", text)
    assert all(0 < len(part) <= MAX_SYMBOLS for part in parts)


def test_a_first_sentence_comes_alone_and_short_ones_together() -> None:
    assert split("wˈʌn. tˈu. θɹˈi! fˈɔɹ?") == ["wˈʌn.", "tˈu. θɹˈi! fˈɔɹ?"]
    assert split("“nˈO.” ʃi sˈɛd.") == ["“nˈO.”", "ʃi sˈɛd."]


def test_a_long_sentence_breaks_at_clauses() -> None:
    clause = "ə kwˈIət ɹˈɛstəɹˌɑnt nˌɪɹ ðə ɹˈɪvəɹ"
    parts = split(", ".join([clause] * 9))
    assert len(parts) > 1
    assert all(len(part) <= 200 for part in parts)
    assert all(part.endswith(",") for part in parts[:-1])


def test_a_word_that_never_ends_is_cut() -> None:
    assert [len(part) for part in split("a" * 1200)] == [510, 510, 180]


def test_voices(tmp_path) -> None:
    styles = np.arange(510 * 256, dtype="<f4").reshape(510, 256)
    for name in ("af_heart", "zm_yunxi", "bf_emma", "jf_alpha", "readme"):
        styles.tofile(tmp_path / f"{name}.bin")
    voices = VoiceFiles(tmp_path)
    assert [(voice.id, voice.language, voice.display_name) for voice in voices.all()] == [
        ("af_heart", "en-US", "Heart"),
        ("bf_emma", "en-GB", "Emma"),
        ("zm_yunxi", "zh-CN", "Yunxi"),
    ]
    assert np.array_equal(voices.styles("af_heart"), styles)
    assert "jf_alpha" not in voices
    assert voice_of("af_") is None
    with pytest.raises(KeyError):
        voices.styles("nobody")
