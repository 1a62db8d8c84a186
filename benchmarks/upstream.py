"""How near our pictures of an imported model are to those of the original TalkingGaussian; their cost.

Usage:
    python -m benchmarks.upstream CHECKPOINT... --data DIRECTORY --renders FILE.npz [--json]

DIRECTORY is what the model was trained on, FILE.npz holds the original's renders of its held-out frames:
`ids`, `off` and `data`, WebP of quality 95. What WebP itself costs is measured on our own pictures.
--units gives face units of the recording, or --encoder the directory of whisper-base, with which they are
heard in --wav: then it is also measured how well the lips follow them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks._report import Figure, Figures, run
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser
from model_hosts.talking_gaussian.upstream.audio import recorded_codes
from model_hosts.talking_gaussian.upstream.bundle import UpstreamBundle
from model_hosts.talking_gaussian.upstream.deformer import UpstreamDeformer
from model_hosts.talking_gaussian.upstream.driving import read_units
from model_hosts.talking_gaussian.upstream.importing import Card, import_avatar
from model_hosts.talking_gaussian.upstream.layout import UpstreamData, read_layout
from model_hosts.talking_gaussian.upstream.masks import PALETTE
from model_hosts.talking_gaussian.upstream.model import read_model
from model_hosts.talking_gaussian.upstream.pictures import read_picture
from model_hosts.talking_gaussian.upstream.render import render_frames
from model_hosts.talking_gaussian.upstream.speech import heard_units, load_encoder, read_speech
from tests.doubles import webp

QUALITY = 95
Floats = npt.NDArray[np.float32]

LIPS = slice(48, 68)
"""The mouth among the 68 landmarks."""
LIP_BOX = (100, 60)
HEAD = (1, 2, 3)
"""Labels of skin, hair and mouth."""


def measure(arguments: argparse.Namespace) -> Figures:
    """All figures."""
    model = read_model(arguments.checkpoints)
    data = read_layout(arguments.data, model.audio_features, arguments.audio)
    count = len(data.views)
    units = np.zeros((count, 52), np.float32)
    if arguments.units:
        units = read_units(arguments.units, count)
    elif arguments.encoder:
        wav = arguments.wav or arguments.data / "aud.wav"
        units = heard_units(read_speech(wav), load_encoder(arguments.encoder), count)
    bundle = import_avatar(model, data, units, Card("original", "Original"))
    codes = recorded_codes(model.tensors, data.windows)
    figures = nearness(bundle, data, arguments.renders) | cost(bundle, codes, data)
    return figures | lips(bundle, codes, units, data) if units.any() else figures


def nearness(bundle: UpstreamBundle, data: UpstreamData, renders: Path) -> Figures:
    """Compares every held-out frame, drawn over its recorded torso, with the original's."""
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


def cost(bundle: UpstreamBundle, codes: Floats, data: UpstreamData) -> Figures:
    """Times the held-out frames on one thread."""
    deformer = UpstreamDeformer(bundle)
    workspace = deformer.workspace()
    rasteriser = CpuRasteriser(bundle.info.camera, bundle.background)
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


def lips(bundle: UpstreamBundle, codes: Floats, units: Floats, data: UpstreamData) -> Figures:
    """Compares the mouth with the recorded one: moved by the original's audio networks, and by face units."""
    driven = bundle.tensor("lip.mean") + (units - bundle.tensor("units.mean")) @ bundle.tensor("units.to_lip")
    deformer = UpstreamDeformer(bundle)
    workspace = deformer.workspace()
    rasteriser = CpuRasteriser(bundle.info.camera, bundle.background)
    mouths: dict[str, list[Floats]] = {"truth": [], "audio": [], "units": []}
    width, height = LIP_BOX
    for number in data.held_out.tolist():
        points = np.loadtxt(data.directory / "ori_imgs" / f"{number}.lms")
        left, top = np.round(points[LIPS].mean(0) - np.array(LIP_BOX) / 2).astype(int)
        box = slice(top, top + height), slice(left, left + width)
        truth = read_picture(data.directory / "gt_imgs" / f"{number}.jpg")
        mouths["truth"].append(truth[box].astype(np.float32))
        for name, source in (("audio", codes), ("units", driven)):
            splats = deformer.splats(source[number], data.action_units[number], data.views[number], workspace)
            mouths[name].append(np.clip(rasteriser.draw_rgb(splats)[box] * 255, 0, 255))
    stacks = {name: np.stack(pictures) for name, pictures in mouths.items()}
    motion = float(stacks["truth"].std(0).mean())
    figures = {"recorded_mouth_motion": Figure(motion, "of 255", note="mean deviation of a pixel over time")}
    for name, how in (("audio", "the original's audio networks"), ("units", "our map of face units")):
        error = np.square(stacks[name] - stacks["truth"]).mean((1, 2, 3))
        decibels = float((10 * np.log10(255**2 / error)).mean())
        figures[f"{name}_mouth_psnr"] = Figure(decibels, "dB", note=f"driven by {how}, against the recording")
        figures[f"{name}_mouth_motion"] = Figure(float(stacks[name].std(0).mean()), "of 255")
    return figures


def psnr(image: npt.NDArray[np.uint8], truth: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> float:
    """Peak signal-to-noise ratio inside a mask, dB."""
    error = float(np.square(image.astype(np.float64) - truth)[mask].mean())
    return float(10 * np.log10(255**2 / error))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--audio", help="file of audio features in the data; default: the one that fits")
    parser.add_argument("--units", type=Path, help="tracked face units of the recording, .npz")
    parser.add_argument("--encoder", type=Path, help="directory of the asset whisper-base")
    parser.add_argument("--wav", type=Path, help="speech of the recording; default: aud.wav of the data")
    parser.add_argument("--renders", type=Path, required=True)
    run("upstream", measure, parser)
