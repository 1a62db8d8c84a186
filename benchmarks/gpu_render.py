"""How fast an NVIDIA GPU draws an avatar, without encoding, and whether it draws what a processor draws.

Usage (in the environment of the trainer, with CUDA):
    python -m benchmarks.gpu_render [--avatar BUNDLE] [--minutes 60] [--json]

Without --avatar the demo avatar is drawn, or, where that is missing, a synthetic one of 30,000 Gaussians.
Every frame has a mouth, a face and a head pose of its own; frames end in the processor's memory, as the
encoder takes them.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks._report import Figure, Figures, run
from model_hosts.talking_gaussian.bundle import Bundle
from model_hosts.talking_gaussian.driving.state import FrameState
from model_hosts.talking_gaussian.rendering.cuda_painter import CudaPainter
from model_hosts.talking_gaussian.training.cuda import check_cuda
from tests.doubles import plain_rasteriser
from tests.doubles.avatar import make_avatar

DEMO = Path(__file__).parents[1] / "server" / "store" / "builtin" / "avatars" / "demo"
_FPS = 25
_SECONDS = 4.0
"""How long each speed is measured."""
_PERIODS = np.array([9.0, 7.0, 13.0, 5.0, 31.0, 41.0, 53.0, 6.0])
"""Of the motion, frames."""


def talk(bundle: Bundle, first: int, count: int) -> FrameState:
    """Frames `first` to `first + count` of somebody who talks and looks around, as wide as recorded."""
    time_of = np.arange(first, first + count)[:, None]

    def wave(width: int, size: object, phase: float) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        period = np.resize(_PERIODS, width) + np.arange(width) / 3
        return np.asarray(size * np.sin(2 * np.pi * time_of / period + phase), np.float32)

    info = bundle.info
    return FrameState(
        lip=wave(info.lip_code, 1.0, 0),
        expression=wave(len(info.expression_names), 0.7, 1),
        pose=wave(6, 0.7 * bundle.tensor("pose.std"), 2),
        torso_track=wave(4, 0.7 * bundle.tensor("track.std"), 3),
    )


def speeds(painter: CudaPainter, bundle: Bundle) -> Figures:
    """Frames a second in batches and alone, and how long the first ones take."""
    figures: Figures = {}
    for name, together, bound in (("batched", 256, 3000), ("single", 1, 500)):
        frames = [talk(bundle, first, together) for first in range(0, 2048, together)]
        for state in frames[:3]:
            consume(painter.draw_yuv(state))
        drawn, began = 0, time.monotonic()
        while (spent := time.monotonic() - began) < _SECONDS:
            drawn += consume(painter.draw_yuv(frames[drawn // together % len(frames)]))
        figures[f"{name}_frames_per_second"] = Figure(drawn / spent, "frames/s", bound, "at least")
    waits = []
    for first in range(50):
        state = talk(bundle, 1000 * first, 8)
        began = time.monotonic()
        next(painter.draw_yuv(state))
        waits.append(1000 * (time.monotonic() - began))
    note = "from driving values to pixels, of a first batch of 8"
    figures["first_frame"] = Figure(statistics.median(waits), "ms", 50, note=f"median of 50; {note}")
    figures["first_frame_worst"] = Figure(max(waits), "ms", 50, note=note)
    return figures


def memory(painter: CudaPainter, bundle: Bundle, minutes: float) -> Figures:
    """What a stream of so many minutes leaves on the GPU."""
    torch.cuda.synchronize()
    free_before, _ = torch.cuda.mem_get_info()
    total = round(60 * minutes * _FPS)
    began = time.monotonic()
    for first in range(0, total, 512):
        consume(painter.draw_yuv(talk(bundle, first, min(512, total - first))))
    free_after, _ = torch.cuda.mem_get_info()
    note = f"{minutes:g} minutes of video, {total} frames, in {time.monotonic() - began:.0f} s"
    peak = torch.cuda.max_memory_reserved() / 2**20
    return {
        "memory_growth": Figure((free_before - free_after) / 2**20, "MiB", 64, note=note),
        "gpu_memory": Figure(peak, "MiB", note="the most that was reserved"),
    }


def parity(painter: CudaPainter, bundle: Bundle) -> Figures:
    """The same frames drawn by the processor."""
    if importlib.util.find_spec("numba") is None:
        return {"cpu_psnr": Figure(None, "dB", 45, "at least", "numba is not installed here")}
    from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput  # noqa: PLC0415
    from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser  # noqa: PLC0415

    deformer = Deformer(bundle)
    workspace, rasteriser = deformer.workspace(), CpuRasteriser(bundle.info.camera, bundle.background)
    state = talk(bundle, 0, 24)
    decibels = []
    for drawn, values in zip(
        painter.draw_rgb(state),
        zip(state.lip, state.expression, state.pose, state.torso_track, strict=True),
        strict=True,
    ):
        wanted = np.clip(rasteriser.draw_rgb(deformer.pose(FrameInput(*values), workspace)), 0, 1)
        decibels.append(plain_rasteriser.psnr(drawn.astype(np.float64), wanted.astype(np.float64)))
    return {"cpu_psnr": Figure(min(decibels), "dB", 45, "at least", f"the worst of {len(decibels)} frames")}


def consume(images: Iterator[object]) -> int:
    """Takes all images; how many there were."""
    return sum(1 for _ in images)


def measure(arguments: argparse.Namespace) -> Figures:
    """All figures."""
    check_cuda()
    with tempfile.TemporaryDirectory(prefix="viseme-") as directory:
        path = arguments.avatar or DEMO
        if not path.exists():
            path = Path(directory) / "synthetic"
            make_avatar(30_000, size=512).write(path)
        bundle = Bundle.read(path)
    began = time.monotonic()
    painter = CudaPainter(bundle)
    info = bundle.info
    count = sum(branch.count for branch in info.branches.values())
    gpu = torch.cuda.get_device_name()
    note = f"avatar {info.name}, {count} Gaussians, {info.width}x{info.height}, {gpu}"
    figures = {"load": Figure(time.monotonic() - began, "s", note=note)}
    return (
        figures
        | speeds(painter, bundle)
        | parity(painter, bundle)
        | memory(painter, bundle, arguments.minutes)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--avatar", type=Path, help="a bundle directory or .zip")
    parser.add_argument("--minutes", type=float, default=60, help="length of the long stream")
    run("gpu_render", measure, parser)
