"""Raw samples of any usual rate are heard as they were spoken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import FieldInvalid
from server.media.resample import PcmResampler
from tests.doubles.recordings import tone


def convert(data: bytes, rate: int, sizes: list[int]) -> np.ndarray:
    """Pushes the data in pieces of these sizes, again and again."""
    resampler = PcmResampler(rate)
    out = []
    start = 0
    turn = 0
    while start < len(data):
        size = sizes[turn % len(sizes)]
        out.append(resampler.push(data[start : start + size]))
        start += size
        turn += 1
    out.append(resampler.finish())
    return np.concatenate(out)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])
def test_a_tone_stays_a_tone(rate: int) -> None:
    heard = convert(tone(1.0, rate).tobytes(), rate, [1 << 20])
    assert len(heard) == 16000
    expected = tone(1.0, 16000).astype(float)
    middle = slice(800, -800)
    noise = heard[middle] - expected[middle]
    assert 10 * np.log10(np.mean(expected[middle] ** 2) / max(np.mean(noise**2), 1e-9)) > 50


@pytest.mark.parametrize("rate", [24000, 44100, 48000])
def test_what_is_too_high_is_gone(rate: int) -> None:
    heard = convert(tone(1.0, rate, hertz=10_500).tobytes(), rate, [1 << 20])
    assert np.sqrt(np.mean(heard[800:-800].astype(float) ** 2)) < 0.3 * 32767 / 100


@given(
    rate=st.sampled_from([8000, 11025, 16000, 24000, 44100, 48000]),
    count=st.integers(0, 3000),
    sizes=st.lists(st.integers(1, 999), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_pieces_make_no_difference(rate: int, count: int, sizes: list[int]) -> None:
    data = np.random.default_rng(count).integers(-9000, 9000, count, np.int16).tobytes()
    heard = convert(data, rate, sizes)
    assert heard.dtype == np.int16
    assert len(heard) == -(-count * 16000 // rate)
    assert np.array_equal(heard, convert(data, rate, [1 << 20]))


@pytest.mark.parametrize("rate", [0, -1, 7999, 48001, 10**9])
def test_rates_that_nobody_records_at(rate: int) -> None:
    with pytest.raises(FieldInvalid, match="rate"):
        PcmResampler(rate)


def test_half_a_sample() -> None:
    resampler = PcmResampler(16000)
    resampler.push(b"\0\0\0")
    with pytest.raises(FieldInvalid, match="middle of a sample"):
        resampler.finish()
