"""What a frame costs on a processor, everything included, and how exact the rasteriser is.

Usage:
    python -m benchmarks.cpu_render [--avatar BUNDLE] [--seconds 20] [--json]

Without --avatar the demo avatar is rendered, or, where that is missing, a synthetic one of 30,000 Gaussians.
CPU seconds are those of the whole host process while it renders: they do not depend on what else the machine
does, as wall time would.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import cast

import numpy as np
import psutil

from benchmarks._report import Figure, Figures, run
from model_hosts.talking_gaussian.bundle import Bundle, Camera
from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput, Splats
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser
from tests.doubles import plain_rasteriser
from tests.doubles.avatar import make_avatar
from tests.render_process import ROOT, collect, config, render_process, speech
from tools import gsplat_fixture

DEMO = ROOT / "server" / "store" / "builtin" / "avatars" / "demo"


def chosen_avatar(avatar: Path | None, scratch: Path) -> Path:
    """The bundle to render."""
    if avatar is not None:
        return avatar.resolve()
    if DEMO.exists():
        return DEMO
    make_avatar(30_000, size=512).write(scratch / "synthetic")
    return scratch / "synthetic"


def cost(bundle: Path, seconds: int, scratch: Path) -> Figures:
    """Renders with one thread and books CPU time."""
    info = Bundle.read(bundle).info
    count = sum(branch.count for branch in info.branches.values())
    note = f"avatar {info.name}, {count} Gaussians, {info.width}x{info.height}, one drawing thread"
    pieces = [speech(1.0, k, end=k % 3 == 2) for k in range(seconds)]
    with render_process(scratch / "host", scratch / "home", threads=1) as host:
        collect(host.render.Render(iter([config(bundle), *pieces[:2]])))  # compiles and loads
        process = psutil.Process(host.process.pid)
        before, started = process.cpu_times(), time.monotonic()
        rendered = collect(host.render.Render(iter([config(bundle), *pieces])))
        after, wall = process.cpu_times(), time.monotonic() - started
    frames = rendered.summary.frame_count
    frame = 1000 * (after.user + after.system - before.user - before.system) / frames
    figures = {
        "cpu_per_frame": Figure(frame, "ms", 20, note=note),
        "real_time_on_one_core": Figure(40 / frame, "x", 2, "at least", "40 ms of video for its CPU time"),
        "wall_speed": Figure(frames / 25 / wall, "x real time", note="as busy as the machine was"),
    }
    for part, spent in sorted(rendered.summary.cpu_seconds.items()):
        figures[f"{part}_per_frame"] = Figure(1000 * spent / frames, "ms")
    return figures


def exactness(bundle: Bundle) -> Figures:
    """Compares a frame with splatting in plain float64, for both vector widths."""
    deformer = Deformer(bundle)
    zeros = FrameInput(
        bundle.tensor("lip.closed"),
        np.zeros(len(bundle.info.expression_names), np.float32),
        np.zeros(6, np.float32),
        np.zeros(4, np.float32),
    )
    splats = deformer.pose(zeros, deformer.workspace())
    expected = plain_rasteriser.render(splats, bundle.info.camera, bundle.background)
    figures = {"gaussians_in_motion": Figure(deformer.active, "Gaussians", note=f"of {deformer.count}")}
    for lanes in (16, 8):
        image = CpuRasteriser(bundle.info.camera, bundle.background, (0,) * lanes).draw_rgb(splats)
        decibels = plain_rasteriser.psnr(image.astype(np.float64), expected)
        figures[f"psnr_{lanes}_lanes"] = Figure(decibels, "dB", 50, "at least", "against plain float64")
    return figures


def parity() -> Figures:
    """Compares our picture of the test scene with the one that gsplat drew on an NVIDIA GPU."""
    splats, camera, plate = gsplat_fixture.read_scene()
    with np.load(gsplat_fixture.IMAGE) as stored:
        expected = stored["image"] / gsplat_fixture.STEPS
    rasteriser = CpuRasteriser(Camera(camera.focal, camera.cx, camera.cy), plate)
    image = np.clip(rasteriser.draw_rgb(cast(Splats, splats)), 0, 1)
    difference = 255 * float(np.abs(image - expected).mean())
    return {"mean_difference_from_gsplat": Figure(difference, "of 255", 1, note="on a fixed scene")}


def measure(arguments: argparse.Namespace) -> Figures:
    """All figures."""
    with tempfile.TemporaryDirectory(prefix="viseme-") as directory:
        scratch = Path(directory)
        bundle = chosen_avatar(arguments.avatar, scratch)
        return cost(bundle, arguments.seconds, scratch) | exactness(Bundle.read(bundle)) | parity()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--avatar", type=Path, help="a bundle directory or .zip")
    parser.add_argument("--seconds", type=int, default=20, help="length of the speech")
    run("cpu_render", measure, parser)
