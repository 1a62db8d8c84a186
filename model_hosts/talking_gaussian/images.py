"""PNG files of a bundle: 8-bit RGB in, 8-bit RGB out, through FFmpeg (the host has it for H.264 anyway)."""

from __future__ import annotations

import io
from typing import cast

import av
import numpy as np
import numpy.typing as npt

RgbImage = npt.NDArray[np.uint8]


def encode_png(image: RgbImage) -> bytes:
    """Encodes uint8 [height, width, 3] RGB as PNG."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be uint8 [height, width, 3], not {image.dtype} {list(image.shape)}")
    codec = av.CodecContext.create("png", "w")
    assert isinstance(codec, av.VideoCodecContext)  # noqa: S101 - narrows the type, "png" is a video codec
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt = "rgb24"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    packets = [*codec.encode(frame), *codec.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def decode_png(data: bytes) -> RgbImage:
    """Decodes a PNG into uint8 [height, width, 3] RGB.

    Raises:
        ValueError: The bytes are no readable PNG.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("not a PNG file")
    try:
        with av.open(io.BytesIO(data), "r", format="png_pipe") as container:
            for frame in container.decode(video=0):
                return cast(RgbImage, frame.to_ndarray(format="rgb24"))
    except av.FFmpegError as error:
        raise ValueError(f"unreadable PNG ({error})") from error
    raise ValueError("the PNG holds no image")
