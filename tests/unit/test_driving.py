"""From speech to a moving face: articulation, performance and the stream that joins them."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_hosts.talking_gaussian.driving import animator, articulation
from model_hosts.talking_gaussian.driving.animator import FaceAnimator, FaceTrack, Utterance, animate
from model_hosts.talking_gaussian.driving.articulation import Phone, lip_gap
from model_hosts.talking_gaussian.driving.performance import MAX_POSE, Cue, Performer
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS, GESTURES, gestures_of
from model_hosts.talking_gaussian.driving.units import UNIT_INDEX, UNIT_NAMES

RATE = 24000
ENGLISH = "iɪᵻɛæɑɔʊuʌəɜɚɐᵊAIOWYQpbmfvθðtdnlszTʃʒʧʤɹjwkɡŋh"
MANDARIN = "pmftlnkxʨɕʦꭧʂɻsjwɥaəɤeɛiɨouyʊɚŋ"
VOWELS = "iɪɛæɑɔʊuʌəɜAIOWYaɤeɨoy"
CLOSED = 0.035

phones_of_speech = st.lists(
    st.tuples(st.sampled_from(ENGLISH + MANDARIN + "__"), st.integers(1, 14), st.integers(0, 2)),
    min_size=1,
    max_size=40,
)


def sentence(parts: list[tuple[str, int, int]], *, question: bool = False, rate: int = RATE) -> Utterance:
    """A sentence of phonemes whose lengths are in steps of 25 ms, with a hum for audio."""
    phones, time = [], 0.0
    for symbol, steps, stress in parts:
        phones.append(Phone(symbol, time, time + steps * 0.025, stress))
        time += steps * 0.025
    count = round(time * rate)
    clock = np.arange(count) / rate
    loud = np.zeros(count)
    for phone in phones:
        if phone.symbol != "_":
            loud[round(phone.start * rate) : round(phone.end * rate)] = 0.25
    hum = loud * np.sin(2 * np.pi * 130 * clock) * (0.7 + 0.3 * np.sin(2 * np.pi * 4 * clock))
    return Utterance((hum * 32767).astype(np.int16), phones, True, question)


def spoken(text: str, *, steps: int = 4, question: bool = False) -> Utterance:
    """A sentence of these phonemes with some silence around; vowels are stressed."""
    parts = [(symbol, steps, 2 if symbol in VOWELS else 0) for symbol in text]
    return sentence([("_", 12, 0), *parts, ("_", 10, 0)], question=question)


def assert_same(one: FaceTrack, other: FaceTrack) -> None:
    for name in ("units", "pose", "gaze", "breath", "channels"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=2e-6, err_msg=name)


def cut(piece: Utterance, places: list[float]) -> list[Utterance]:
    """The same sentence in several pieces, cut at these shares of its length.

    The two halves of a sound that is cut have the same symbol: this is how they are known to be one.
    """
    count = len(piece.samples)
    edges = [0, *sorted({min(count, max(0, round(place * count))) for place in places}), count]
    pieces = []
    for low, high in itertools.pairwise(edges):
        begin, end = low / RATE, high / RATE
        phones = [
            Phone(p.symbol, max(p.start, begin) - begin, min(p.end, end) - begin, p.stress)
            for p in piece.phones or ()
            if p.start < end - 1e-9 and p.end > begin + 1e-9
        ]
        last = high == count
        pieces.append(Utterance(piece.samples[low:high], phones, last, piece.question and last))
        if last:
            break
    return pieces


def test_the_units_are_the_52_of_arkit_in_alphabetical_order() -> None:
    assert len(UNIT_NAMES) == 52
    assert list(UNIT_NAMES) == sorted(UNIT_NAMES)


@pytest.mark.parametrize("symbol", sorted(set(ENGLISH + MANDARIN)))
def test_every_phoneme_of_the_synthesiser_has_a_gesture(symbol: str) -> None:
    assert gestures_of(symbol)
    assert all(name in GESTURES for name in gestures_of(symbol))


@pytest.mark.parametrize(("symbol", "same"), [("pʰ", "p"), ("ˈæ", "æ"), ("uː", "u"), (",", "_"), ("↗", "")])
def test_marks_do_not_change_a_phoneme(symbol: str, same: str) -> None:
    assert gestures_of(symbol) == gestures_of(same)


@given(phones_of_speech)
@settings(max_examples=60, deadline=None)
def test_channels_and_units_stay_within_bounds(parts: list[tuple[str, int, int]]) -> None:
    piece = sentence(parts)
    found = articulation.channels(piece.phones or (), -20, 400)
    assert found.min() >= -1e-9
    assert found.max() <= 1.0 + 1e-9
    track = animate([piece], RATE, 3)
    assert track.units.min() >= 0.0
    assert track.units.max() <= 1.0
    assert (np.abs(track.pose) <= MAX_POSE).all()


@given(st.sampled_from("pbm"), st.sampled_from(VOWELS), st.sampled_from(VOWELS), st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_lips_close_for_bilabials_whatever_is_around(lips: str, before: str, after: str, steps: int) -> None:
    piece = sentence([("_", 10, 0), (before, 5, 2), (lips, steps, 0), (after, 5, 2), ("_", 10, 0)])
    track = animate([piece], RATE, 1)
    gap = lip_gap(track.units)
    start = 15 * 0.025
    first, last = math.floor((start - 0.03) * 25), math.ceil((start + steps * 0.025) * 25)
    assert gap[first : last + 1].min() < 0.01
    assert gap[: first - 1].max() > gap[first : last + 1].min() + 0.02


@pytest.mark.parametrize("sound", ["f", "v"])
def test_the_lower_lip_goes_under_the_teeth_for_f_and_v(sound: str) -> None:
    track = animate([spoken("ɑ" + sound + "ɑ")], RATE, 1)
    tucked = track.units[:, UNIT_INDEX["mouthRollLower"]]
    assert tucked.max() > 0.55
    moment = int(tucked.argmax())
    assert 0.0 < lip_gap(track.units)[moment] < 0.15
    assert track.units[moment, UNIT_INDEX["mouthUpperUpLeft"]] > 0.15


def peak(text: str, unit: str) -> float:
    return float(animate([spoken(text)], RATE, 1).units[:, UNIT_INDEX[unit]].max())


def test_sounds_have_their_shapes() -> None:
    assert peak("kɑk", "jawOpen") > 2.5 * peak("kik", "jawOpen")
    assert peak("kuk", "mouthPucker") > 0.7
    assert peak("kik", "mouthPucker") < 0.2
    assert peak("kik", "mouthStretchLeft") > 2 * peak("kuk", "mouthStretchLeft")
    assert peak("æθæ", "tongueOut") > 0.4 > peak("ælæ", "tongueOut") > 0.15 > peak("ækæ", "tongueOut")
    assert peak("ɑʃɑ", "mouthFunnel") > 0.4 > peak("ɑkɑ", "mouthFunnel")
    # Rounding of a vowel begins in the sounds before it.
    early = animate([spoken("ku", steps=6)], RATE, 1).units[:, UNIT_INDEX["mouthPucker"]]
    assert early[math.floor((0.30 + 0.10) * 25)] > 0.25


def test_lips_are_closed_in_silence_and_pauses() -> None:
    piece = sentence([("_", 20, 0), ("ɑ", 8, 2), ("_", 24, 0), ("ɑ", 8, 2), ("_", 24, 0)])
    gap = lip_gap(animate([piece], RATE, 5).units)
    for begin, end in ((0.0, 0.38), (0.92, 1.18), (1.70, 2.10)):
        assert gap[math.ceil(begin * 25) : math.floor(end * 25)].max() < CLOSED
    assert gap.max() > 0.25


def test_a_quiet_voice_opens_the_mouth_as_well() -> None:
    loud = spoken("kɑkɑkɑ")
    quiet = Utterance((loud.samples * 0.03).astype(np.int16), loud.phones)
    opened = [lip_gap(animate([piece], RATE, 5).units).max() for piece in (loud, quiet)]
    assert opened[1] > 0.7 * opened[0]


def test_a_gap_between_words_does_not_close_the_mouth() -> None:
    piece = sentence([("_", 10, 0), ("ɑ", 6, 2), ("_", 2, 0), ("ɑ", 6, 2), ("_", 10, 0)])
    gap = lip_gap(animate([piece], RATE, 5).units)
    assert gap[math.floor(0.42 * 25)] > 0.2


@given(
    phones_of_speech,
    phones_of_speech,
    st.lists(st.floats(0.02, 0.98), max_size=5),
    st.booleans(),
    st.integers(0, 9),
)
@settings(max_examples=50, deadline=None)
def test_the_same_speech_gives_the_same_face_however_it_is_cut(
    first: list[tuple[str, int, int]],
    second: list[tuple[str, int, int]],
    places: list[float],
    question: bool,
    seed: int,
) -> None:
    parts = [[("_", 8, 0), *first], [*second, ("_", 6, 0)]]
    different = [[next(group) for _, group in itertools.groupby(part, lambda x: x[0])] for part in parts]
    sentences = [sentence(different[0], question=question), sentence(different[1])]
    whole = animate(sentences, RATE, seed)
    assert len(whole) == math.ceil(sum(len(piece.samples) for piece in sentences) * 25 / RATE)
    pieces = [part for piece in sentences for part in cut(piece, places)]
    assert_same(whole, animate(pieces, RATE, seed))


def test_a_seed_decides_the_performance_and_not_the_lips() -> None:
    piece = spoken("hɛlOmIfɹɛndhWɑɹju")
    one, again, other = (animate([piece], RATE, seed) for seed in (4, 4, 5))
    assert_same(one, again)
    assert np.abs(one.pose - other.pose).max() > 0.5
    np.testing.assert_array_equal(one.channels, other.channels)


def test_frames_come_with_the_stated_latency() -> None:
    stream = FaceAnimator(1, RATE)
    piece = spoken("hɛlOmIfɹɛndhWɑɹju")
    heard = len(piece.samples) / RATE
    track = stream.push(piece)
    assert len(track) == math.floor((heard - animator.LATENCY_AT_END) * 25 + 1e-6)
    stream.push(Utterance(piece.samples, piece.phones, False))
    assert stream.frames == math.floor((2 * heard - animator.LATENCY_IN_SENTENCE) * 25 + 1e-6)
    stream.finish()
    assert stream.frames == math.ceil(2 * len(piece.samples) * 25 / RATE)


@pytest.mark.parametrize("count", [0, 1, 959, 960, 961, 24000])
def test_the_number_of_frames_follows_the_samples(count: int) -> None:
    stream = FaceAnimator(0, RATE)
    found = [
        stream.push(Utterance(np.zeros(count, np.int16), [Phone("_", 0.0, count / RATE)])),
        stream.finish(),
    ]
    assert sum(len(part) for part in found) == math.ceil(count * 25 / RATE)


def test_a_finished_stream_takes_no_more() -> None:
    stream = FaceAnimator(0, RATE)
    stream.finish()
    with pytest.raises(ValueError, match="finished"):
        stream.push(spoken("ɑ"))
    with pytest.raises(ValueError, match="finished"):
        stream.finish()


def test_speech_without_phonemes_needs_a_listener() -> None:
    with pytest.raises(ValueError, match="listener"):
        FaceAnimator(0, RATE).push(Utterance(np.zeros(100, np.int16), None))


class Wide:
    """A listener that always hears an open mouth."""

    lip_size = 0

    def push(self, samples: npt.NDArray[np.int16]) -> None:
        pass

    def channels(self, first: int, count: int) -> npt.NDArray[np.float64]:
        mouth = np.zeros((count, len(CHANNELS)))
        mouth[:, CHANNELS.index("jaw")] = 0.5
        return mouth

    def lips(self, first: int, count: int) -> npt.NDArray[np.float64]:
        return np.zeros((count, 0))

    def forget(self, frame: int) -> None:
        pass


def test_the_lips_follow_the_audio_where_phonemes_are_missing() -> None:
    stream = FaceAnimator(0, RATE, Wide())
    quiet = sentence([("_", 60, 0)])
    heard = Utterance(sentence([("ɑ", 60, 0)]).samples, None)
    track = FaceTrack.concatenate(
        [stream.push(quiet), stream.push(heard), stream.push(quiet), stream.finish()]
    )
    jaw = track.channels[:, CHANNELS.index("jaw")]
    assert jaw[:34].max() < 0.05
    assert jaw[39:74].min() > 0.49
    assert jaw[78:].max() < 0.05
    assert np.abs(np.diff(jaw)).max() < 0.4


def minutes_of_speech(seconds: float) -> list[Utterance]:
    texts = ["hɛlOmIfɹɛndhWɑɹju", "wiθɔtðætðəwɛðəɹwʊdbifIn", "pʊtðəbɪɡbluboʊtbIðəɹɪvəɹ"]
    pieces, total = [], 0.0
    while total < seconds:
        number = len(pieces)
        pieces.append(spoken(texts[number % 3], question=number % 4 == 1))
        total += len(pieces[-1].samples) / RATE
    return pieces


def test_a_long_performance_is_human() -> None:
    track = animate(minutes_of_speech(180.0), RATE, 8)
    lids = track.units[:, UNIT_INDEX["eyeBlinkLeft"]] > 0.6
    starts = np.flatnonzero(np.diff(lids.astype(int)) == 1)
    a_minute = len(starts) / (len(track) / 25 / 60)
    assert 10 < a_minute < 34
    assert np.diff(starts).min() >= 4
    assert np.diff(starts).max() < 11 * 25
    deviation = track.pose.std(0)
    assert (deviation > (1.2, 0.7, 0.6)).all()
    assert (deviation < (4.5, 2.6, 2.6)).all()
    # The eyes stay on the viewer while the head turns.
    look = (track.gaze * (1, -1) + track.pose[:, :2])[~lids]
    assert np.median(np.abs(look), axis=0).max() < 1.2
    brows = track.units[:, UNIT_INDEX["browInnerUp"]]
    assert brows.max() > 0.3
    assert np.median(brows) < 0.15


def test_nothing_jumps() -> None:
    track = animate(minutes_of_speech(60.0), RATE, 2)
    assert np.abs(np.diff(track.pose, axis=0)).max() < 2.0
    fast = {
        "eyeBlinkLeft",
        "eyeBlinkRight",
        "eyeLookDownLeft",
        "eyeLookDownRight",
        "mouthClose",
        "mouthRollLower",
    }
    change = np.abs(np.diff(track.units, axis=0)).max(0)
    slow = [index for index, name in enumerate(UNIT_NAMES) if name not in fast]
    assert change[slow].max() < 0.42
    assert change.max() < 0.75


def test_a_question_raises_the_brows_at_its_end() -> None:
    rise = []
    for question in (True, False):
        tracks = [animate([spoken("kænjukAmtəmɑɹO", question=question)], RATE, seed) for seed in range(12)]
        rise.append(np.mean([track.units[-8:, UNIT_INDEX["browInnerUp"]].mean() for track in tracks]))
    assert rise[0] > rise[1] + 0.15


def test_an_accent_moves_brows_or_head() -> None:
    cues = [Cue(0.8, True, 2.0 if frame == 50 else 0.0) for frame in range(100)]
    calm = [Cue(0.8, True) for _ in range(100)]
    moved = 0
    for seed in range(20):
        one, other = Performer(seed).advance(cues), Performer(seed).advance(calm)
        np.testing.assert_array_equal(one.pose[:50], other.pose[:50])
        moved += bool(
            np.abs(one.pose - other.pose)[50:66].max() > 0.8
            or np.abs(one.units - other.units)[50:66, :5].max() > 0.1
        )
    assert moved >= 14


def test_memory_does_not_grow() -> None:
    stream = FaceAnimator(1, RATE)
    piece = spoken("hɛlOmIfɹɛndhWɑɹju")
    sizes = []
    tracemalloc.start()
    try:
        for number in range(30):
            stream.push(piece)
            if number in {9, 29}:
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 20_000
