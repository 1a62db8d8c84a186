"""Windows of speech for the recogniser."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from model_hosts.whisper.windows import LONGEST_SECONDS, SAMPLE_RATE, Stretch, windows


@st.composite
def talks(draw: st.DrawFn) -> tuple[list[Stretch], int]:
    speech: list[Stretch] = []
    now = draw(st.integers(0, 5 * SAMPLE_RATE))
    for length in draw(st.lists(st.integers(1, int(LONGEST_SECONDS * SAMPLE_RATE)), max_size=8)):
        speech.append(Stretch(now, now + length))
        now += length + draw(st.integers(0, 4 * SAMPLE_RATE))
    return speech, now + draw(st.integers(0, SAMPLE_RATE))


@given(talks())
def test_windows_hold_all_speech_once_and_fit(case: tuple[list[Stretch], int]) -> None:
    speech, samples = case
    cut = windows(speech, samples)
    assert all(0 <= window.start < window.end <= samples for window in cut)
    assert all(window.seconds <= LONGEST_SECONDS + 2 + 1e-6 for window in cut)
    assert all(first.end <= second.start for first, second in itertools.pairwise(cut))
    for stretch in speech:
        assert sum(window.start <= stretch.start and stretch.end <= window.end for window in cut) == 1


def test_neighbours_are_joined() -> None:
    second = SAMPLE_RATE
    speech = [Stretch(second, 4 * second), Stretch(5 * second, 9 * second), Stretch(12 * second, 30 * second)]
    assert windows(speech, 40 * second) == [
        Stretch(0, 10 * second),
        Stretch(11 * second, 31 * second),
    ]


def test_nobody_speaks() -> None:
    assert windows([], 1000) == []
