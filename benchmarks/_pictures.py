"""What a benchmark leaves to look at: strips of frames and videos of pictures side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.images import encode_png

ByteArray = npt.NDArray[np.uint8]

_FPS = 25


def write_sheet(path: Path, rows: Sequence[Sequence[ByteArray]]) -> None:
    """Writes rows of pictures of one size, uint8 [H, W, 3], as a PNG."""
    path.write_bytes(encode_png(np.concatenate([np.concatenate(row, 1) for row in rows])))


def evenly(pictures: Sequence[ByteArray], count: int) -> list[ByteArray]:
    """So many of the pictures, the first and the last among them."""
    return [pictures[i] for i in np.linspace(0, len(pictures) - 1, count).astype(int)]


def write_video(
    path: Path, pictures: Iterable[ByteArray], samples: npt.NDArray[np.int16], sample_rate: int
) -> None:
    """Writes an H.264 MP4 of 25 pictures a second with its sound.

    Args:
        path: The file.
        pictures: uint8 [H, W, 3], H and W even.
        samples: int16, mono.
        sample_rate: Samples a second.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", _FPS, options={"crf": "16", "preset": "fast"})
        audio = container.add_stream("aac", sample_rate)
        for number, picture in enumerate(pictures):
            if number == 0:
                video.height, video.width = picture.shape[:2]
                video.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, _FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], "s16", "mono")
        sound.sample_rate, sound.pts, sound.time_base = sample_rate, 0, Fraction(1, sample_rate)
        container.mux(audio.encode(sound))
        container.mux(audio.encode())
