"""Draws a performance: pictures in order from one or several processes, and the video file."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from tools.studio.labels import encode
from tools.studio.performance import FPS, Performance
from tools.studio.presenter import Pose, Presenter
from tools.studio.sources import find_sources

BATCH = 20


@dataclass(frozen=True)
class Drawn:
    """One frame with its truth: picture [h, w, 3], label map as PNG, V [4, 4], landmarks [P, 2] pixels."""

    picture: npt.NDArray[np.uint8]
    labels: bytes
    view: npt.NDArray[np.float32]
    points: npt.NDArray[np.float32]


def draw(presenter: Presenter, pose: Pose) -> Drawn:
    """Draw one frame with everything that the dataset keeps of it."""
    picture = presenter.frame(pose)
    label_map, _ = presenter.labels()
    return Drawn(picture, encode(label_map), presenter.view(), presenter.project())


_worker: list[Presenter] = []
"""The presenter of a worker process; a graphics context cannot be handed over."""


def _start_worker(supersampling: int) -> None:
    _worker.append(Presenter(find_sources(), supersampling=supersampling))


def _draw_batch(poses: list[Pose]) -> list[Drawn]:
    return [draw(_worker[0], pose) for pose in poses]


def frames(
    presenter: Presenter, performance: Performance, *, supersampling: int, workers: int
) -> Iterator[Drawn]:
    """Draw all frames in order; with more than one worker in processes of their own."""
    poses = [performance.frame(k) for k in range(len(performance))]
    if workers == 1:
        yield from (draw(presenter, pose) for pose in poses)
        return
    batches = [poses[k : k + BATCH] for k in range(0, len(poses), BATCH)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (supersampling,)) as pool:
        for batch in pool.imap(_draw_batch, batches):
            yield from batch


class VideoFile:
    """H.264 with optional AAC sound, 25 frames a second.

    Args:
        path: file to write.
        size: width and height.
        crf: quality of x264.
        pixels: pixel format, yuv444p for training, yuv420p for looking.
    """

    def __init__(
        self, path: Path, size: int, *, crf: int, pixels: str, sample_rate: int | None = None
    ) -> None:
        self._container: Any = av.open(str(path), "w", options={"movflags": "+faststart"})
        options = {"crf": str(crf), "preset": "medium", "tune": "animation"}
        self._video: Any = self._container.add_stream("libx264", rate=FPS, options=options)
        self._video.width = self._video.height = size
        self._video.pix_fmt = pixels
        self._audio: Any = None
        if sample_rate is not None:
            self._audio = self._container.add_stream("aac", rate=sample_rate, layout="mono")
            self._audio.bit_rate = 96_000

    def picture(self, rgb: npt.NDArray[np.uint8]) -> None:
        """Append a frame."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
        self._container.mux(self._video.encode(frame))

    def sound(self, samples: npt.NDArray[np.int16]) -> None:
        """Append all of the sound."""
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate = self._audio.rate
        self._container.mux(self._audio.encode(frame))

    def close(self) -> None:
        """Flush and finish the file."""
        for stream in (self._video, self._audio):
            if stream is not None:
                self._container.mux(stream.encode(None))
        self._container.close()
