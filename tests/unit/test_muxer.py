"""The muxer's clock: frame k shows audio time k/25, for any length and rate."""

from __future__ import annotations

import io
import itertools
import math
import struct

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_hosts.talking_gaussian.rendering import boxes
from model_hosts.talking_gaussian.rendering.encoder import AAC_RATES, KEY_INTERVAL
from model_hosts.talking_gaussian.rendering.muxer import FIRST_FRAGMENT, FRAGMENT, Fragment, Muxer

SIZE = 64


def picture(number: int) -> npt.NDArray[np.uint8]:
    """A grey that tells the frame's number, modulo 20."""
    image = np.full((SIZE * 3 // 2, SIZE), 128, np.uint8)
    image[:SIZE] = 20 + number % 20 * 10
    return image


def mux(samples: npt.NDArray[np.int16], rate: int, chunk: int | None = None) -> list[Fragment]:
    """Speech in chunks, each frame as soon as its sound is there."""
    muxer = Muxer(SIZE, SIZE, rate)
    fragments = [muxer.start()]
    drawn = 0

    def draw(until: int) -> None:
        nonlocal drawn
        while drawn < until:
            fragment = muxer.add_frame(picture(drawn))
            drawn += 1
            if fragment is not None:
                fragments.append(fragment)

    step = chunk or max(1, len(samples))
    for start in range(0, len(samples), step):
        muxer.add_speech(samples[start : start + step])
        draw(min(start + step, len(samples)) * 25 // rate)
    draw(math.ceil(len(samples) * 25 / rate))
    last = muxer.finish()
    if last is not None:
        fragments.append(last)
    assert muxer.frame_count == drawn
    assert muxer.sample_count == len(samples)
    return fragments


def join(fragments: list[Fragment]) -> io.BytesIO:
    return io.BytesIO(b"".join(fragment.data for fragment in fragments))


def packets(data: io.BytesIO, kind: str) -> list[tuple[float, float]]:
    """Start and end in seconds of the packets of a track."""
    data.seek(0)
    with av.open(data) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [
            (float(packet.pts * packet.time_base), float((packet.pts + packet.duration) * packet.time_base))
            for packet in container.demux(stream)
            if packet.pts is not None
        ]


@settings(max_examples=30, deadline=None)
@given(
    seconds=st.floats(0.0, 3.0),
    extra=st.integers(-2, 2),
    rate=st.sampled_from([8000, 16000, 22050, 24000, 44100, 48000]),
    chunk=st.sampled_from([None, 160, 997, 4096]),
)
def test_tracks_are_of_one_length(seconds: float, extra: int, rate: int, chunk: int | None) -> None:
    count = max(1, int(seconds * rate) + extra)
    fragments = mux(np.zeros(count, np.int16), rate, chunk)
    data = join(fragments)
    video, audio = packets(data, "video"), packets(data, "audio")
    assert len(video) == math.ceil(count * 25 / rate)
    for k, (start, end) in enumerate(video):
        assert start == pytest.approx(k / 25, abs=1e-9)
        assert end == pytest.approx((k + 1) / 25, abs=1e-9)
    assert audio[-1][1] == pytest.approx(count / rate, abs=1e-9)
    assert 0 <= video[-1][1] - audio[-1][1] < 1 / 25
    # Sound without a gap, after one priming frame before time 0.
    assert audio[0][0] == pytest.approx(-1024 / rate, abs=1e-9)
    assert all(a[1] == pytest.approx(b[0], abs=1e-9) for a, b in itertools.pairwise(audio))


@settings(max_examples=15, deadline=None)
@given(
    place=st.floats(0.05, 0.95),
    rate=st.sampled_from([16000, 22050, 24000, 48000]),
    frames=st.integers(10, 60),
)
def test_a_click_is_heard_at_its_frame(place: float, rate: int, frames: int) -> None:
    samples = np.zeros(frames * rate // 25, np.int16)
    click = int(place * len(samples))
    samples[click : click + rate // 200] = 20000
    data = join(mux(samples, rate, 1000))
    with av.open(data) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert abs(int(np.argmax(np.abs(heard) > 0.3)) - click) <= rate // 500
    data.seek(0)
    with av.open(data) as container:
        grey = [int(frame.to_ndarray(format="gray")[8, 8]) for frame in container.decode(video=0)]
    expected = [(20 + k % 20 * 10 - 16) * 255 / 219 for k in range(frames)]
    np.testing.assert_allclose(grey, expected, atol=4)


def test_fragments_are_consecutive_and_the_first_is_short() -> None:
    fragments = mux(np.zeros(24000 * 3, np.int16), 24000, 480)
    assert (fragments[0].first_frame, fragments[0].frame_count) == (0, 0)
    counts = [fragment.frame_count for fragment in fragments[1:]]
    assert counts[0] == FIRST_FRAGMENT
    assert all(count == FRAGMENT for count in counts[1:-1])
    assert sum(counts) == 75
    assert [fragment.first_frame for fragment in fragments[1:]] == list(np.cumsum([0, *counts[:-1]]))


def top_level(data: bytes) -> list[bytes]:
    kinds = []
    while data:
        size, kind = struct.unpack(">I4s", data[:8])
        assert 8 <= size <= len(data)
        kinds.append(kind)
        data = data[size:]
    return kinds


def test_each_fragment_is_whole_boxes() -> None:
    first, *others = mux(np.zeros(50000, np.int16), 24000)
    assert top_level(first.data) == [b"ftyp", b"moov"]
    assert all(top_level(fragment.data) == [b"moof", b"mdat"] for fragment in others)


def test_a_stream_can_be_watched_before_it_ends() -> None:
    """Every prefix of the fragments is a playable file, with the sound of the frames that it shows."""
    rng = np.random.default_rng(0)
    fragments = mux(rng.integers(-3000, 3000, 48000).astype(np.int16), 24000, 2400)
    for count in range(2, len(fragments) + 1):
        data = join(fragments[:count])
        video, audio = packets(data, "video"), packets(data, "audio")
        assert len(video) == sum(fragment.frame_count for fragment in fragments[:count])
        # The encoder holds back one frame, priming takes one, and one may be half full.
        assert audio[-1][1] >= video[-1][1] - 3.1 * 1024 / 24000


def test_flushes_what_waits() -> None:
    muxer = Muxer(SIZE, SIZE, 16000)
    assert muxer.flush() is None
    muxer.add_speech(np.zeros(16000, np.int16))
    for k in range(3):
        assert muxer.add_frame(picture(k)) is None
    fragment = muxer.flush()
    assert fragment is not None
    assert (fragment.first_frame, fragment.frame_count) == (0, 3)
    assert muxer.flush() is None


def test_nothing_spoken_is_a_head_only() -> None:
    fragments = mux(np.zeros(0, np.int16), 24000)
    assert fragments[0].frame_count == 0
    muxer = Muxer(SIZE, SIZE, 24000)
    muxer.start()
    assert muxer.finish() is None


def test_a_viewer_can_begin_every_two_seconds() -> None:
    data = join(mux(np.zeros(16000 * 5, np.int16), 16000))
    with av.open(data) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.pts is not None]
    assert [k for k, key in enumerate(keys) if key] == list(range(0, 125, KEY_INTERVAL))


def test_the_stream_says_how_its_colours_are_made() -> None:
    data = join(mux(np.zeros(16000, np.int16), 16000))
    with av.open(data) as container:
        codec = container.streams.video[0].codec_context
        frame = next(container.decode(video=0))
        assert (codec.width, codec.height, codec.pix_fmt) == (SIZE, SIZE, "yuv420p")
        assert (int(frame.colorspace), int(frame.color_range)) == (6, 1)
        assert container.streams.video[0].average_rate == 25


@pytest.mark.parametrize("rate", AAC_RATES)
def test_every_rate_of_aac_works(rate: int) -> None:
    data = join(mux(np.zeros(rate // 5, np.int16), rate))
    with av.open(data) as container:
        assert container.streams.audio[0].rate == rate
        assert sum(frame.samples for frame in container.decode(audio=0)) >= rate // 5


@settings(max_examples=50)
@given(
    st.lists(st.binary(min_size=1, max_size=40).filter(lambda unit: b"\0\0" not in unit and unit[-1] != 0))
)
def test_start_codes_become_lengths(units: list[bytes]) -> None:
    annex_b = b"".join((b"\0\0\0\1" if k % 2 else b"\0\0\1") + unit for k, unit in enumerate(units))
    assert boxes.nal_units(annex_b) == units
    data = boxes.length_prefixed(annex_b)
    for unit in units:
        size = int.from_bytes(data[:4])
        assert data[4 : 4 + size] == unit
        data = data[4 + size :]
    assert data == b""
