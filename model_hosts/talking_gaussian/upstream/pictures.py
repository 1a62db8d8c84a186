"""Pictures of the original's layout: JPEG and PNG with alpha, through FFmpeg's codecs.

Colours are converted here and not by FFmpeg's scaler, whose fast path is off by a level or two: as JFIF says
(BT.601, full range), chroma upsampled linearly.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

_TO_YUV = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]], np.float32
)


def encode_jpeg(image: ByteArray) -> bytes:
    """Encodes uint8 [height, width, 3] RGB at the best quality, without chroma subsampling."""
    height, width = image.shape[:2]
    codec = av.CodecContext.create("mjpeg", "w")
    assert isinstance(codec, av.VideoCodecContext)  # noqa: S101 - narrows the type
    codec.width, codec.height, codec.pix_fmt = width, height, "yuvj444p"
    codec.options = {"qmin": "1", "qmax": "1"}
    yuv = _TO_YUV @ image.reshape(-1, 3).T.astype(np.float32) + np.array(
        [[0.5], [128.5], [128.5]], np.float32
    )
    planes = np.clip(yuv, 0, 255).astype(np.uint8).reshape(3, height, width)
    frame = av.VideoFrame.from_ndarray(planes, format="yuvj444p")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def encode_alpha_png(image: ByteArray) -> bytes:
    """Encodes uint8 [height, width, 4] RGBA as PNG."""
    codec = av.CodecContext.create("png", "w")
    assert isinstance(codec, av.VideoCodecContext)  # noqa: S101 - narrows the type
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt = "rgba"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgba")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def read_picture(path: Path) -> ByteArray:
    """Decodes a JPEG or PNG: uint8 [height, width, 3], or 4 when a PNG has alpha.

    Raises:
        ValueError: The file is no such picture.
        OSError: It cannot be read.
    """
    data = path.read_bytes()
    kind = "png_pipe" if data.startswith(b"\x89PNG") else "jpeg_pipe"
    try:
        with av.open(io.BytesIO(data), "r", format=kind) as container:
            for frame in container.decode(video=0):
                return _rgb(frame)
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(f"{path.name} is no readable picture ({error})") from error
    raise ValueError(f"{path.name} holds no picture")


def _rgb(frame: av.VideoFrame) -> ByteArray:
    layout = frame.format.name
    if layout in {"rgb24", "rgba"}:
        return cast(ByteArray, frame.to_ndarray(format=layout))
    if not layout.startswith("yuvj"):
        return cast(ByteArray, frame.to_ndarray(format="rgb24"))
    planes = [_plane(plane) for plane in frame.planes]
    luma, *chroma = planes
    cb, cr = (_enlarge(plane, luma.shape) - 128 for plane in chroma)
    rgb = np.stack([luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb], -1)
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8)


def _plane(plane: av.video.plane.VideoPlane) -> Doubles:
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return np.asarray(rows[:, : plane.width], np.float64)


def _enlarge(plane: Doubles, shape: tuple[int, ...]) -> Doubles:
    """Linear interpolation to the size of the luma; samples lie in the middle of their pixels."""
    for axis, size in enumerate(shape):
        if plane.shape[axis] == size:
            continue
        place = np.clip((np.arange(size) + 0.5) * plane.shape[axis] / size - 0.5, 0, plane.shape[axis] - 1)
        low = np.minimum(place.astype(int), plane.shape[axis] - 2)
        part = (place - low).reshape((-1, 1) if axis == 0 else (1, -1))
        plane = plane.take(low, axis) * (1 - part) + plane.take(low + 1, axis) * part
    return plane
