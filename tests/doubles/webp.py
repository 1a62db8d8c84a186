"""WebP pictures, as the original's renders are stored: decoded and encoded without FFmpeg's colour scaler."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np


def stored_frame(archive: Path, number: int) -> np.ndarray:
    """A frame of an .npz with `ids`, `off` and `data`: float64 [height, width, 3] RGB.

    Raises:
        ValueError: It does not hold this frame.
    """
    with np.load(archive, allow_pickle=False) as stored:
        place = stored["ids"].tolist().index(number)
        data = stored["data"][stored["off"][place] : stored["off"][place + 1]].tobytes()
    return decode(data)


def decode(data: bytes) -> np.ndarray:
    """float64 [height, width, 3] RGB of limited-range 4:2:0, chroma enlarged as libwebp does, not rounded."""
    with av.open(io.BytesIO(data), "r", format="webp_pipe") as container:
        picture = next(iter(container.decode(video=0)))
        planes = picture.to_ndarray(format="yuv420p").astype(np.float64)
    height, width = picture.height, picture.width
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    luma = (planes[:height] - 16) * 255 / 219
    blue, red = ((_enlarge(_enlarge(plane).T).T - 128) * 255 / 224 for plane in chroma)
    rgb = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], -1)
    return np.asarray(np.clip(rgb, 0, 255))


def encode(image: np.ndarray, quality: int) -> bytes:
    """Lossy WebP of uint8 [height, width, 3] RGB; libwebp converts the colours."""
    codec = av.CodecContext.create("libwebp", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt = "bgra"
    codec.options = {"quality": str(quality), "lossless": "0"}
    opaque = np.dstack([image[..., ::-1], np.full(image.shape[:2], 255, np.uint8)])
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(opaque), format="bgra")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def _enlarge(plane: np.ndarray) -> np.ndarray:
    """Twice as many rows, each three quarters of the nearer old row and a quarter of the other."""
    padded = np.pad(plane, ((1, 1), (0, 0)), "edge")
    near = padded[1:-1] * 0.75
    rows = np.stack([near + padded[:-2] * 0.25, near + padded[2:] * 0.25], 1)
    return rows.reshape(-1, plane.shape[1])
