"""Any video file as upright pictures at 25 a second, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar, cast

import av
import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]
Shown = TypeVar("Shown")

FPS = 25


class VideoUnreadable(ValueError):  # noqa: N818 - reads as a statement, like DatasetInvalid
    """The file is no video that can be decoded, or too large to be; the message says which."""


@dataclass(frozen=True)
class Limits:
    """What a video may be at most, checked before and while it is decoded.

    Attributes:
        bytes: Size of the file.
        seconds: Length.
        pixels: Of one picture.
    """

    bytes: int = 4 * 2**30
    seconds: float = 600.0
    pixels: int = 4096 * 2304


@dataclass(frozen=True)
class Source:
    """A video file, looked at but not decoded.

    Attributes:
        path: The file.
        codec: Of the pictures.
        stored: Width and height of the pictures as they are stored.
        stretch: Width of a pixel over its height.
        seconds: Length as the file says, 0 when it does not say.
        rate: Pictures a second as the file says, 0 when it does not say.
        sound: Whether there is a sound track.
        limits: What it may be.
    """

    path: Path
    codec: str
    stored: tuple[int, int]
    stretch: Fraction
    seconds: float
    rate: float
    sound: bool
    limits: Limits


@dataclass(frozen=True)
class Picture:
    """A decoded picture that is turned upright and stretched to square pixels when it is read.

    Attributes:
        time: Seconds after the first picture.
        frame: As decoded.
        stretch: Width of a pixel over its height.
    """

    time: float
    frame: av.VideoFrame
    stretch: Fraction

    @property
    def upright(self) -> bool:
        """Whether the stored picture needs neither turning nor stretching."""
        return self._quarters == 0 and self.stretch == 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        width, height = self._square()
        return (height, width) if self._quarters % 2 else (width, height)

    def rgb(self, longest: int | None = None) -> ByteArray:
        """The picture, uint8 [height, width, 3]; made smaller until its longer side is at most `longest`."""
        width, height = self._square()
        if longest is not None and max(width, height) > longest:
            share = longest / max(width, height)
            width, height = max(2, round(width * share)), max(2, round(height * share))
        if (width, height) == (self.frame.width, self.frame.height):
            pixels = self.frame.to_ndarray(format="rgb24")
        else:
            pixels = self.frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
        # The turn is counted against the clock, like numpy's.
        return cast(ByteArray, np.ascontiguousarray(np.rot90(pixels, self._quarters)))

    @property
    def _quarters(self) -> int:
        return round(self.frame.rotation / 90) % 4

    def _square(self) -> tuple[int, int]:
        return max(1, round(self.frame.width * self.stretch)), self.frame.height


def probe(path: Path, limits: Limits) -> Source:
    """Looks at a file without decoding a picture.

    Raises:
        VideoUnreadable: It is no video, or it is larger than the limits.
    """
    try:
        size = path.stat().st_size
        if size > limits.bytes:
            raise VideoUnreadable(
                f"the file has {size / 2**20:.0f} MiB, more than {limits.bytes / 2**20:.0f}"
            )
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            width, height = stream.codec_context.width, stream.codec_context.height
            seconds = _seconds(container, stream)
            rate = float(stream.average_rate or 0)
            stretch = stream.sample_aspect_ratio or Fraction(1)
            codec = stream.codec_context.name
            sound = bool(container.streams.audio)
    except (OSError, av.FFmpegError, IndexError) as error:
        raise VideoUnreadable(f"the file cannot be read as video ({error})") from error
    if width * height > limits.pixels:
        raise VideoUnreadable(f"pictures of {width}x{height} are larger than can be used")
    if not Fraction(1, 4) <= stretch <= 4:
        stretch = Fraction(1)
    return Source(path, codec, (width, height), stretch, seconds, rate, sound, limits)


def pictures(source: Source) -> Iterator[Picture]:
    """Every picture in the order of its time; pictures without a usable time stamp follow at the usual rate.

    Raises:
        VideoUnreadable: The file is damaged before its first picture, or longer than the limits.
    """
    step = 1 / source.rate if source.rate else 1 / FPS
    first: float | None = None
    last = -1.0
    try:
        with av.open(str(source.path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if frame.width * frame.height > source.limits.pixels:
                    raise VideoUnreadable(
                        f"pictures of {frame.width}x{frame.height} are larger than can be used"
                    )
                stamp = last + step if frame.time is None else float(frame.time) - (first or 0.0)
                if first is None:
                    first, stamp = float(frame.time or 0.0), 0.0
                if stamp <= last:
                    continue
                if stamp > source.limits.seconds:
                    raise VideoUnreadable(f"the video is longer than {source.limits.seconds:.0f} s")
                last = stamp
                yield Picture(stamp, frame, source.stretch)
    except (OSError, av.FFmpegError) as error:
        if first is None:
            raise VideoUnreadable(f"the file cannot be read as video ({error})") from error
    if first is None:
        raise VideoUnreadable("the file holds no picture")


def at_25(timed: Iterable[tuple[float, Shown]]) -> Iterator[Shown]:
    """Resamples what is shown from given times on to 25 a second: for each k what is nearest to second k/25.

    Args:
        timed: Times in seconds, rising, the first 0, and what is shown then.
    """
    index = 0
    before: tuple[float, Shown] | None = None
    gaps: list[float] = []
    for time, shown in timed:
        if before is not None:
            gaps = [*gaps[-24:], time - before[0]]
            while index / FPS <= (before[0] + time) / 2:
                yield before[1]
                index += 1
        before = (time, shown)
    if before is not None:
        # The last one is shown as long as the ones before it were.
        usual = float(np.median(gaps)) if gaps else 1 / FPS
        while index / FPS < before[0] + usual - 0.5 / FPS + 1e-6:
            yield before[1]
            index += 1


def _seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else 0.0
