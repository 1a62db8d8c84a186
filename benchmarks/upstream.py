"""How near our pictures of an imported model are to those of the original TalkingGaussian, and what they cost.

Usage:
    python -m benchmarks.upstream CHECKPOINT... --data DIRECTORY --renders FILE.npz [--json]

DIRECTORY is what the model was trained on, FILE.npz holds the original's renders of its held-out frames: `ids`,
`off` and `data`, WebP of quality 95. What WebP itself costs is measured on our own pictures.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks._report import Figure, Figures, run
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser
from model_hosts.talking_gaussian.upstream.deformer import UpstreamDeformer
from model_hosts.talking_gaussian.upstream.importing import Card, import_avatar, recorded_codes
from model_hosts.talking_gaussian.upstream.layout import UpstreamData, read_layout
from model_hosts.talking_gaussian.upstream.masks import PALETTE
from model_hosts.talking_gaussian.upstream.model import UpstreamModel, read_model
from model_hosts.talking_gaussian.upstream.pictures import read_picture
from model_hosts.talking_gaussian.upstream.render import render_frames
from tests.doubles import webp

QUALITY = 95
HEAD = (1, 2, 3)
"""Labels of skin, hair and mouth."""


def measure(arguments: argparse.Namespace) -> Figures:
    """All figures."""
    model = read_model(arguments.checkpoints)
    data = read_layout(arguments.data, model.audio_features, arguments.audio)
    return nearness(model, data, arguments.renders) | cost(model, data)


def nearness(model: UpstreamModel, data: UpstreamData, renders: Path) -> Figures:
    """Compares every held-out frame, drawn over its recorded torso, with the original's."""
    bundle = import_avatar(
        model, data, np.zeros((len(data.views), 52), np.float32), Card("original", "Original")
    )
    numbers = data.held_out.tolist()
    heads, wholes, limits = [], [], []
    for number, image in zip(numbers, render_frames(bundle, data, numbers), strict=True):
        truth = webp.stored_frame(renders, number)
        labels = read_picture(data.directory / "parsing" / f"{number}.png")
        head = np.any([(labels == PALETTE[label]).all(-1) for label in HEAD], 0)
        heads.append(psnr(image, truth, head))
        wholes.append(psnr(image, truth, np.ones_like(head)))
        limits.append(psnr(image, webp.decode(webp.encode(image, QUALITY)), head))
    note = f"{len(numbers)} held-out frames"
    return {
        "head_psnr": Figure(float(np.mean(heads)), "dB", 40, "at least", f"mean of {note}"),
        "head_psnr_least": Figure(min(heads), "dB", 40, "at least", f"least of {note}"),
        "webp_head_psnr": Figure(float(np.mean(limits)), "dB", note="our pictures against their own WebP"),
        "whole_psnr": Figure(float(np.mean(wholes)), "dB", note="recorded torso pasted by both"),
    }


def cost(model: UpstreamModel, data: UpstreamData) -> Figures:
    """Times the held-out frames on one thread."""
    bundle = import_avatar(
        model, data, np.zeros((len(data.views), 52), np.float32), Card("original", "Original")
    )
    deformer = UpstreamDeformer(bundle)
    workspace = deformer.workspace()
    rasteriser = CpuRasteriser(bundle.info.camera, bundle.background)
    codes = recorded_codes(model, data)
    times = []
    for number in data.held_out.tolist():
        started = time.thread_time()
        splats = deformer.splats(codes[number], data.action_units[number], data.views[number], workspace)
        deformed = time.thread_time()
        rasteriser.draw_yuv(splats)
        times.append((deformed - started, time.thread_time() - deformed))
    deform, raster = 1000 * np.median(times, 0)
    count = f"{deformer.count} Gaussians, one thread"
    return {
        "deform_per_frame": Figure(float(deform), "ms", note=count),
        "raster_per_frame": Figure(float(raster), "ms", note=count),
    }


def psnr(image: npt.NDArray[np.uint8], truth: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> float:
    """Peak signal-to-noise ratio inside a mask, dB."""
    error = float(np.square(image.astype(np.float64) - truth)[mask].mean())
    return float(10 * np.log10(255**2 / error))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--audio", help="file of audio features in the data; default: the one that fits")
    parser.add_argument("--renders", type=Path, required=True)
    run("upstream", measure, parser)
