"""The square of the video that the avatar shows, the same for the whole clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.preprocess.source import FPS, Picture, Source, at_25, pictures

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

_FACE_SHARE = 0.47
"""Height of the face, hairline to chin, as a share of the square: as in talking-head clips."""
_FACE_MIDDLE = 0.53
"""Where the middle of the face is, from the top."""
_WHOLE = 0.88
"""A square video is taken whole when the best square is at least this share of it."""
_CRF = "8"


@dataclass(frozen=True)
class Crop:
    """A square of the upright pictures and the size it is resampled to, all in pixels."""

    left: int
    top: int
    side: int
    size: int

    def cut(self, picture: ByteArray) -> ByteArray:
        """The square out of a picture [h, w, 3], resampled to [size, size, 3]."""
        square = np.ascontiguousarray(
            picture[self.top : self.top + self.side, self.left : self.left + self.side]
        )
        if self.side == self.size:
            return square
        interpolation = "AREA" if self.side > 2 * self.size else "LANCZOS"
        frame = av.VideoFrame.from_ndarray(square, format="rgb24")
        small = frame.reformat(self.size, self.size, "rgb24", interpolation=interpolation)
        return cast(ByteArray, small.to_ndarray())


def choose_crop(boxes: FloatArray, picture: tuple[int, int], size: int) -> Crop:
    """The square that shows head and shoulders as in talking-head clips, wherever the head moves.

    Args:
        boxes: Faces in the course of the video, [n, 4]: left, top, right, bottom in pixels.
        picture: Width and height of the upright pictures.
        size: Side of the wanted clip.
    """
    width, height = picture
    low, high = np.percentile(boxes, 3, axis=0), np.percentile(boxes, 97, axis=0)
    face = float(np.median(boxes[:, 3] - boxes[:, 1]))
    motion = max(high[2] - low[0], high[3] - low[1]) - face
    side = min(face / _FACE_SHARE + max(0.0, motion - 0.3 * face), width, height)
    if width == height and side >= _WHOLE * width:
        return Crop(0, 0, width, size)
    side = max(2, int(side) // 2 * 2)
    x, y = (low[0] + high[2]) / 2, (low[1] + high[3]) / 2
    left = int(np.clip(round(x - side / 2), 0, width - side))
    top = int(np.clip(round(y - _FACE_MIDDLE * side), 0, height - side))
    return Crop(left, top, side, size)


def write_clip(source: Source, crop: Crop, path: Path) -> None:
    """Writes the clip: the stream itself where it already is what is wanted, else encoded almost losslessly.

    Raises:
        VideoUnreadable: The video cannot be decoded.
    """
    if _is_wanted(source, crop):
        _copy(source, path)
    else:
        _encode(source, crop, path)


def _is_wanted(source: Source, crop: Crop) -> bool:
    """Whether the stored stream is the clip: H.264 of this size, upright, whole, exactly 25 a second."""
    if source.codec != "h264" or source.stored != (crop.size, crop.size) or crop.side != crop.size:
        return False
    return all(
        picture.upright and abs(picture.time - index / FPS) < 1e-3
        for index, picture in enumerate(pictures(source))
    )


def _copy(source: Source, path: Path) -> None:
    with av.open(str(source.path)) as container, av.open(str(path), "w", format="mp4") as out:
        stream = container.streams.video[0]
        copied = out.add_stream_from_template(stream)
        for packet in container.demux(stream):
            if packet.dts is not None:
                packet.stream = copied
                out.mux(packet)


def _encode(source: Source, crop: Crop, path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"crf": _CRF, "preset": "superfast"})
        stream.width = stream.height = crop.size
        stream.pix_fmt = "yuv444p"
        for square in _squares(source, crop):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(square, format="rgb24")))
        out.mux(stream.encode(None))


def _squares(source: Source, crop: Crop) -> Iterator[ByteArray]:
    """The cut pictures at 25 a second; one that is shown twice is cut once."""
    last: tuple[Picture, ByteArray] | None = None
    for picture in at_25((picture.time, picture) for picture in pictures(source)):
        if last is None or last[0] is not picture:
            last = (picture, crop.cut(picture.rgb()))
        yield last[1]
