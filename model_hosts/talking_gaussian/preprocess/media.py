"""Reading the pictures of a training clip."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]


class DatasetInvalid(ValueError):  # noqa: N818 - reads as a statement, like BundleInvalid
    """The training data cannot be used; the message says which file and what is wrong with it."""


def read_frames(path: Path) -> Iterator[ByteArray]:
    """Decodes the frames of a clip one by one, uint8 [height, width, 3] RGB.

    Raises:
        DatasetInvalid: The file is missing, damaged or has no video.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                yield cast(ByteArray, frame.to_ndarray(format="rgb24"))
    except (OSError, av.FFmpegError, IndexError) as error:
        raise DatasetInvalid(f"{path.name} cannot be read as video ({error})") from error


def read_clip(path: Path) -> ByteArray:
    """Decodes every frame of a clip.

    Returns:
        uint8 [frames, height, width, 3] RGB.

    Raises:
        DatasetInvalid: The file is missing, damaged or has no video.
    """
    frames = list(read_frames(path))
    if not frames:
        raise DatasetInvalid(f"{path.name} holds no frame")
    return np.stack(frames)


def read_grey_png(data: bytes) -> ByteArray:
    """Decodes an 8-bit grey PNG without any change of its values: uint8 [height, width].

    Raises:
        DatasetInvalid: The bytes are no such picture.
    """
    try:
        with av.open(io.BytesIO(data), "r", format="png_pipe") as container:
            for frame in container.decode(video=0):
                if frame.format.name != "gray":
                    raise DatasetInvalid(f"a label map must be 8-bit grey, not {frame.format.name}")
                return cast(ByteArray, frame.to_ndarray(format="gray"))
    except av.FFmpegError as error:
        raise DatasetInvalid(f"a label map is damaged ({error})") from error
    raise DatasetInvalid("a label map is empty")


def read_labels(path: Path) -> ByteArray:
    """Reads `labels.npz`: `data`, the PNGs of all frames one after another, and `offset` [frames + 1].

    Returns:
        uint8 [frames, height, width].

    Raises:
        DatasetInvalid: The file is missing or damaged.
    """
    return np.stack(list(iterate_grey(path)))


def iterate_grey(path: Path) -> Iterator[ByteArray]:
    """The pictures of a file like labels.npz one by one, uint8 [height, width].

    Raises:
        DatasetInvalid: The file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            data, offset = archive["data"].tobytes(), archive["offset"]
    except (OSError, KeyError, ValueError) as error:
        raise DatasetInvalid(f"{path.name} cannot be read ({error})") from error
    for start, end in pairwise(offset.tolist()):
        yield read_grey_png(data[start:end])


class GreyPictures:
    """Grey pictures packed as labels.npz has them, one PNG after another."""

    def __init__(self) -> None:
        self._pngs: list[bytes] = []

    def add(self, picture: ByteArray) -> None:
        """Packs one more picture, uint8 [height, width]."""
        codec = av.CodecContext.create("png", "w")
        assert isinstance(codec, av.VideoCodecContext)  # noqa: S101 - narrows the type, "png" is a video codec
        codec.height, codec.width = picture.shape
        codec.pix_fmt = "gray"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray")
        packets = [*codec.encode(frame), *codec.encode(None)]
        self._pngs.append(b"".join(bytes(packet) for packet in packets))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """`data`, the PNGs one after another, and `offset` [pictures + 1]."""
        offset = np.cumsum([0, *(len(png) for png in self._pngs)])
        return {"data": np.frombuffer(b"".join(self._pngs), np.uint8), "offset": offset}
