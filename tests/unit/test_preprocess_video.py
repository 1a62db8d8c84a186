"""Videos as telephones, browsers and editors make them: containers, rates, rotation, sound, crops."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_hosts.talking_gaussian.preprocess.crop import Crop, choose_crop, write_clip
from model_hosts.talking_gaussian.preprocess.media import GreyPictures, iterate_grey, read_clip
from model_hosts.talking_gaussian.preprocess.sound import (
    SAMPLE_RATE,
    read_sound,
    read_wav,
    shifted,
    write_wav,
)
from model_hosts.talking_gaussian.preprocess.source import (
    Limits,
    VideoUnreadable,
    at_25,
    pictures,
    probe,
)

SIZES = (96, 64)


def _picture(index: int, size: tuple[int, int]) -> np.ndarray:
    """The number of the picture as its brightness, a white upper left corner."""
    width, height = size
    image = np.full((height, width, 3), 20 + 4 * (index % 50), np.uint8)
    image[: height // 4, : width // 4] = 255
    return image


def _video(
    path: Path,
    times: list[float],
    codec: str = "libx264",
    size: tuple[int, int] = SIZES,
    rotation: int = 0,
    stretch: Fraction | None = None,
    beep: float | None = None,
    sound_at: float = 0.0,
) -> Path:
    """A video whose pictures are shown at given times, with a beep at a given second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 90000)
        if codec == "mpeg4":
            stream.codec_context.time_base = stream.time_base = Fraction(1, 30000)
            stream.bit_rate = 4_000_000
        if codec == "libvpx":
            stream.bit_rate = 4_000_000
        if codec == "libx264":
            stream.options = {"crf": "1", "preset": "ultrafast"}
        if stretch:
            stream.codec_context.sample_aspect_ratio = stretch
        if rotation:
            stream.set_display_rotation(rotation)
        sound = container.add_stream("aac", rate=48000, layout="mono") if beep is not None else None
        if sound is not None:
            _beep(container, sound, beep or 0.0, sound_at)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(_picture(index, size), "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time * 90000), Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _beep(container: av.container.OutputContainer, sound: av.AudioStream, at: float, start: float) -> None:
    samples = np.zeros(48000 * 3, np.float32)
    place = round(at * 48000)
    samples[place : place + 2400] = 0.5 * np.sin(np.arange(2400) * 0.3)
    for begin in range(0, len(samples) - 1024, 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, begin : begin + 1024], "fltp", "mono")
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        frame.pts = begin + round(start * 48000)
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def _shown(path: Path) -> list[int]:
    """Which pictures a 25 Hz clip of a video shows."""
    source = probe(path, Limits())
    values = [
        picture.rgb()[-8:, -8:].mean() for picture in at_25((shot.time, shot) for shot in pictures(source))
    ]
    return [round((value - 20) / 4) for value in values]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "mpeg4"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx"),
        ("a.avi", "mpeg4"),
    ],
)
def test_pictures_of_any_container_come_at_their_times(tmp_path: Path, name: str, codec: str):
    path = _video(tmp_path / name, [index / 25 for index in range(20)], codec)
    assert _shown(path) == list(range(20))


def test_thirty_a_second_become_twenty_five_without_drift(tmp_path: Path):
    path = _video(tmp_path / "a.mp4", [index / 30 for index in range(45)])
    assert _shown(path) == [min(44, round(k * 1.2)) for k in range(38)]


def test_slow_video_shows_pictures_more_than_once(tmp_path: Path):
    path = _video(tmp_path / "a.mp4", [index / 12.5 for index in range(10)])
    assert _shown(path)[::2] == list(range(10))


def test_a_telephones_uneven_rate_keeps_its_times(tmp_path: Path):
    rng = np.random.default_rng(1)
    times = np.cumsum(np.r_[0, rng.choice([0.02, 0.033, 0.05, 0.12], 30)]).tolist()
    shown = _shown(_video(tmp_path / "a.mp4", times))
    for k, index in enumerate(shown):
        best = min(abs(time - k / 25) for time in times)
        assert abs(times[index] - k / 25) <= best + 0.02 or index == len(times) - 1
    assert len(shown) == pytest.approx(times[-1] * 25 + 1, abs=2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.004, 0.4), min_size=1, max_size=60))
def test_resampling_is_in_order_and_as_long_as_the_video(steps: list[float]):
    times = np.cumsum([0.0, *steps]).tolist()
    shown = list(at_25((time, index) for index, time in enumerate(times)))
    assert shown == sorted(shown)
    assert shown[0] == 0
    last = float(np.median(steps[-25:]))
    assert len(shown) == pytest.approx((times[-1] + last) * 25, abs=1.01)
    for k, index in enumerate(shown):
        assert abs(times[index] - k / 25) <= min(abs(time - k / 25) for time in times) + 1e-9


@pytest.mark.parametrize(
    ("rotation", "corner"), [(0, (0, 0)), (-90, (0, -1)), (90, (-1, 0)), (180, (-1, -1))]
)
def test_a_turned_telephone_gives_upright_pictures(tmp_path: Path, rotation: int, corner: tuple[int, int]):
    path = _video(tmp_path / "a.mp4", [0.0, 0.04, 0.08], rotation=rotation)
    picture = next(pictures(probe(path, Limits())))
    upright = picture.rgb()
    wide = rotation % 180 == 0
    assert picture.size == (SIZES if wide else SIZES[::-1])
    assert upright.shape[:2] == picture.size[::-1]
    # The white corner goes where the telephone's turn takes it.
    assert upright[corner].min() > 200
    others = {(0, 0), (0, -1), (-1, 0), (-1, -1)} - {corner}
    assert max(upright[other].max() for other in others) < 100


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path):
    path = _video(tmp_path / "a.mp4", [0.0, 0.04], stretch=Fraction(4, 3))
    picture = next(pictures(probe(path, Limits())))
    assert picture.size == (128, 64)
    assert picture.rgb().shape == (64, 128, 3)
    assert picture.rgb(longest=64).shape == (32, 64, 3)


def test_what_is_too_large_is_refused_before_it_is_decoded(tmp_path: Path):
    path = _video(tmp_path / "a.mp4", [index / 25 for index in range(30)])
    with pytest.raises(VideoUnreadable, match="larger than can be used"):
        probe(path, Limits(pixels=96 * 64 - 1))
    with pytest.raises(VideoUnreadable, match="MiB"):
        probe(path, Limits(bytes=100))
    with pytest.raises(VideoUnreadable, match="longer than 1 s"):
        list(pictures(probe(path, Limits(seconds=1.0))))


def test_what_is_no_video_is_refused(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(VideoUnreadable, match="cannot be read as video"):
        probe(tmp_path / "a.mp4", Limits())
    with pytest.raises(VideoUnreadable, match="cannot be read as video"):
        probe(tmp_path / "missing.mp4", Limits())
    whole = _video(tmp_path / "b.mkv", [index / 25 for index in range(30)]).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    shown = _shown(tmp_path / "cut.mkv")
    assert 0 < len(shown) < 30


@pytest.mark.parametrize("start", [0.0, 0.2])
def test_sound_keeps_its_place_beside_the_pictures(tmp_path: Path, start: float):
    path = _video(tmp_path / "a.mkv", [index / 25 for index in range(75)], beep=1.0, sound_at=start)
    samples = read_sound(probe(path, Limits()))
    assert samples is not None
    loud = np.nonzero(np.abs(samples) > 3000)[0]
    assert loud[0] / SAMPLE_RATE == pytest.approx(1.0 + start, abs=0.03)


def test_a_silent_film_has_no_sound(tmp_path: Path):
    assert read_sound(probe(_video(tmp_path / "a.mp4", [0.0, 0.04]), Limits())) is None


@settings(deadline=None)
@given(st.floats(-1, 1), st.integers(1, 50))
def test_shifted_sound_is_as_long_as_the_frames(seconds: float, frames: int):
    samples = np.arange(1, 16001, dtype=np.int16)
    moved = shifted(samples, seconds, frames)
    assert len(moved) == frames * 640
    place = np.arange(len(moved)) + round(seconds * SAMPLE_RATE)
    inside = (place >= 0) & (place < len(samples))
    np.testing.assert_array_equal(moved, np.where(inside, samples[place.clip(0, 15999)], 0))


def test_wav_comes_back(tmp_path: Path):
    samples = np.array([0, 1, -32768, 32767], np.int16)
    write_wav(tmp_path / "a.wav", samples)
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav"), samples)


def test_a_clip_that_is_already_right_is_copied_bit_by_bit(tmp_path: Path):
    path = _video(tmp_path / "a.mp4", [index / 25 for index in range(20)], size=(64, 64))
    source = probe(path, Limits())
    write_clip(source, Crop(0, 0, 64, 64), tmp_path / "clip.mp4")
    with av.open(str(path)) as before, av.open(str(tmp_path / "clip.mp4")) as after:
        packets = [[bytes(packet) for packet in file.demux(video=0)] for file in (before, after)]
    assert packets[0] == packets[1]
    np.testing.assert_array_equal(read_clip(tmp_path / "clip.mp4"), read_clip(path))


def test_any_other_clip_is_cut_and_resampled(tmp_path: Path):
    path = _video(tmp_path / "a.mp4", [index / 30 for index in range(30)])
    write_clip(probe(path, Limits()), Crop(32, 0, 64, 32), tmp_path / "clip.mp4")
    frames = read_clip(tmp_path / "clip.mp4")
    assert frames.shape == (25, 32, 32, 3)
    np.testing.assert_allclose(
        frames[:, 20, 20].mean(-1), [20 + 4 * round(k * 1.2) for k in range(25)], atol=4
    )


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(100, 2000),
    height=st.integers(100, 2000),
    x=st.floats(0.2, 0.8),
    y=st.floats(0.2, 0.8),
    share=st.floats(0.1, 0.9),
)
def test_the_crop_is_a_square_inside_that_holds_the_face(
    width: int, height: int, x: float, y: float, share: float
):
    side = share * min(width, height)
    middle = np.clip([x * width, y * height], side / 2, [width - side / 2, height - side / 2])
    box = np.concatenate([middle - side / 2, middle + side / 2]).astype(np.float32)
    crop = choose_crop(np.tile(box, (5, 1)), (width, height), 256)
    assert crop.left >= 0 and crop.left + crop.side <= width
    assert crop.top >= 0 and crop.top + crop.side <= height
    assert crop.left <= box[0] + 1 and box[2] - 1 <= crop.left + crop.side
    assert crop.top <= box[1] + 1 and box[3] - 1 <= crop.top + crop.side


def test_grey_pictures_come_back_exactly(tmp_path: Path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 20, 30)).astype(np.uint8)
    packed = GreyPictures()
    for image in images:
        packed.add(image)
    np.savez(tmp_path / "grey.npz", **packed.arrays())
    np.testing.assert_array_equal(np.stack(list(iterate_grey(tmp_path / "grey.npz"))), images)
