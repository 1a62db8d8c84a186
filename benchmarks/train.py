"""What learning an avatar costs, and how good it becomes.

Usage (in the environment of the trainer, `tools/training_environment DIRECTORY`):
    python -m benchmarks.train [--dataset DIRECTORY] [--steps N] [--sheet PNG] [--json]
    python -m benchmarks.train --dataset DIRECTORY --device cuda [--preset person] [--repeat 10] [--out FILE]
    python -m benchmarks.train --dataset DIRECTORY --bundle AVATAR --encoder DIRECTORY [--models DIRECTORY]
                               [--renders NPZ] [--output DIRECTORY]

Without --dataset only the kernels are measured; with one, a recording, an avatar is trained on the CPU with
the preset `laptop`, or with --device cuda on the GPU; --repeat makes the clip so many times as long, to see
what a long one costs. With --bundle nothing is trained: an avatar that was, is held beside the frames of the
recording that it has not seen, its lips driven by the sound alone; the output folder gets a video and a strip
of truth, avatar and, with --renders, the original side by side, and a strip of two silent seconds.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks._held_out import Comparison, draw, heard_codes
from benchmarks._pictures import evenly, write_sheet, write_video
from benchmarks._report import Figure, Figures, run
from benchmarks._stillness import background_flicker, silence
from model_hosts.talking_gaussian.bundle import Bundle
from model_hosts.talking_gaussian.driving.whisper_features import SAMPLE_RATE
from model_hosts.talking_gaussian.images import encode_png
from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet, load
from model_hosts.talking_gaussian.preprocess.sound import PER_FRAME, read_wav
from model_hosts.talking_gaussian.preprocess.tools import Tools
from model_hosts.talking_gaussian.training.cuda import check_cuda
from model_hosts.talking_gaussian.training.evaluate import evaluate
from model_hosts.talking_gaussian.training.events import Event
from model_hosts.talking_gaussian.training.export import Card, export_bundle
from model_hosts.talking_gaussian.training.rasterise import Splats, rasterise
from model_hosts.talking_gaussian.training.settings import PRESETS, Settings
from model_hosts.talking_gaussian.training.sheets import contact_sheet, telling_frames
from model_hosts.talking_gaussian.training.threads import give_cores_to_kernels, kernel_threads
from model_hosts.talking_gaussian.training.trainer import Trainer
from model_hosts.talking_gaussian.training.transfer import motion_for, recipe_for
from tests.doubles.dense_rasteriser import dense
from tests.doubles.webp import stored_frame

_BATCH = 4
_REPEATS = 8
_CHANNELS = 5
_PER_FRAME = "frames", "labels", "poses", "units", "lip", "track", "lip_corner", "eye_corners", "silent"
_LONG = 2500
"""Frames from which a clip may take longer to train."""
_STRIP = 6
"""Frames of the strip: truth, avatar, and the original when its renders are given."""


def head(count: int, size: int, batch: int) -> tuple[Splats, float]:
    """A cloud as dense as a face in the middle of a picture of `size` pixels, and the focal length."""
    rng = np.random.default_rng(0)
    focal = 2.5 * size
    across = np.clip(rng.normal(0, 0.08, (batch, count, 2)), -0.2, 0.2)
    means = np.concatenate([across, rng.uniform(1.0, 1.1, (batch, count, 1))], -1)
    quats = rng.normal(size=(batch, count, 4))
    quats /= np.linalg.norm(quats, axis=-1, keepdims=True)
    spacing = np.sqrt(0.45 * size * size / count) / focal
    values = (
        means,
        quats,
        0.6 * spacing * np.exp(rng.normal(0, 0.3, (batch, count, 3))),
        rng.uniform(0.5, 0.98, (batch, count)),
        rng.uniform(0, 1, (batch, count, _CHANNELS)),
    )
    return Splats(*(torch.from_numpy(value).float().requires_grad_() for value in values)), focal


def kernels(cores: int) -> Figures:
    """What drawing a frame costs, and the way back: CPU time on one thread, wall time on all."""
    figures: Figures = {}
    for size, count in ((512, 30_000), (512, 10_000), (256, 30_000), (256, 10_000)):
        splats, focal = head(count, size, _BATCH)
        for threads, clock, unit in ((1, time.process_time, "CPU ms"), (cores, time.monotonic, "ms")):
            torch.set_num_threads(threads)
            spent = []
            for _ in range(_REPEATS):
                begun = clock()
                drawn = rasterise(splats, focal, (size / 2, size / 2), (size, size))
                there = clock()
                torch.autograd.grad(drawn.sum(), list(splats))
                spent.append((there - begun, clock() - there))
            for part, seconds in zip(("draw", "gradients"), np.min(spent, 0), strict=True):
                name = f"{part}_{count // 1000}k_gaussians_{size}" + (
                    f"_{threads}_threads" if threads > 1 else ""
                )
                figures[name] = Figure(1000 * float(seconds) / _BATCH, unit)
    return figures


def exactness() -> Figures:
    """The picture and the gradients against plain torch in float64."""
    size = 48
    fast, focal = head(150, size, 1)
    plain = Splats(*(value.detach().double().requires_grad_() for value in fast))
    camera = focal, (size / 2, size / 2), (size, size)
    weight = torch.randn(1, _CHANNELS + 1, size, size, generator=torch.Generator().manual_seed(0))
    unit = plain._replace(quats=torch.nn.functional.normalize(plain.quats, dim=-1))
    drawn, wanted = rasterise(fast, *camera), dense(unit, *camera)
    ours = torch.autograd.grad((drawn * weight).sum(), list(fast))
    theirs = torch.autograd.grad((wanted * weight).sum(), list(plain))
    worst = max(_relative(a, b) for a, b in zip(ours, theirs, strict=True))
    return {
        "picture_error": Figure(float((drawn - wanted).detach().abs().max()), "of 1", 0.005, note="largest"),
        "gradient_error": Figure(
            worst, "relative", 0.01, note="worst of means, turns, sizes, opacity, colour"
        ),
    }


def _relative(ours: Tensor, wanted: Tensor) -> float:
    return float((ours - wanted).norm() / wanted.norm())


def training_on_a_cpu(dataset: Path, steps: int | None, sheet: Path | None) -> Figures:
    """Trains with the preset `laptop`, everything from reading the recording to the measured avatar."""
    settings = PRESETS["laptop"] if steps is None else PRESETS["laptop"].with_steps(steps)
    begun, spent = time.monotonic(), time.process_time()
    data = load(dataset)
    trainer = _trainer(data, settings, torch.device("cpu"))
    trainer.run()
    wall, cpu = time.monotonic() - begun, time.process_time() - spent
    if sheet is not None:
        sheet.write_bytes(encode_png(contact_sheet(trainer, telling_frames(data))))
    count = sum(branch.count for branch in trainer.scene.branches.values())
    height, width = trainer.data.size
    note = (
        f"{data.count} frames, {count} Gaussians at {width}x{height}, {kernel_threads()} threads; "
        "wall time, as busy as the machine was"
    )
    figures = {
        "cpu_training": Figure(wall, "s", 900, note=note),
        "cpu_training_cost": Figure(cpu, "CPU s", 1800, note="all of two cores for 900 s"),
    }
    for stage, seconds in trainer.seconds.items():
        figures[f"cpu_stage_{stage}"] = Figure(seconds, "s")
    for region, value in evaluate(trainer, data.held_out).items():
        unit = "dB" if region in ("psnr", "head", "lips", "mouth", "torso") else ""
        figures[f"cpu_held_out_{region}"] = Figure(value, unit, note=f"{len(data.held_out)} frames")
    return figures


def _trainer(
    data: TrainingSet,
    settings: Settings,
    device: torch.device,
    watch: Callable[[Event], None] | None = None,
    from_nothing: bool = False,
) -> Trainer:
    """As the host makes it: people start with the motion of the demo avatar, unless from nothing."""
    motion = None if from_nothing else motion_for(data)
    if motion is not None:
        settings = recipe_for(settings, data, motion)
    return Trainer(data, settings, device, watch, motion=motion)


def training_on_a_gpu(arguments: argparse.Namespace) -> Figures:
    """Trains on CUDA as the command does, from the prepared recording to the measured avatar."""
    settings = PRESETS[arguments.preset]
    if arguments.steps is not None:
        settings = settings.with_steps(arguments.steps)
    device = torch.device("cuda")
    check_cuda()  # compiles gsplat where that was never done
    used: list[int] = []

    def watch(event: Event) -> None:
        free, total = torch.cuda.mem_get_info()
        used.append(total - free)

    begun = time.monotonic()
    data = repeated(load(arguments.dataset), arguments.repeat)
    read = time.monotonic()
    trainer = _trainer(data, settings, device, watch, arguments.from_nothing)
    settings = trainer.settings
    trainer.run()
    wall = time.monotonic() - read
    if arguments.out is not None:
        export_bundle(trainer, Card("benchmark", "Benchmark"), {}, arguments.out)
    count = sum(branch.count for branch in trainer.scene.branches.values())
    height, width = trainer.data.size
    steps = settings.mouth_steps + settings.face_steps + settings.fuse_steps
    note = f"{torch.cuda.get_device_name()}, {data.count} frames, {count} Gaussians at {width}x{height}"
    long = data.count > _LONG
    figures = {
        "gpu_training": Figure(wall, "s", 180 if long else 60, note=f"{note}, preset {arguments.preset}"),
        "gpu_step": Figure(1000 * sum(trainer.seconds.values()) / steps, "ms", note=f"mean of {steps}"),
        "gpu_memory": Figure(max(used) / 2**30, "GiB", 24, note="the most in use, looked at every second"),
        "gpu_host_memory": Figure(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "GiB", 16, note="most resident"
        ),
        "gpu_recording_read": Figure(read - begun, "s"),
    }
    for stage, seconds in trainer.seconds.items():
        figures[f"gpu_stage_{stage}"] = Figure(seconds, "s")
    for region, value in evaluate(trainer, data.held_out).items():
        unit = "dB" if region in ("psnr", "head", "lips", "mouth", "torso") else ""
        figures[f"gpu_held_out_{region}"] = Figure(value, unit, note="lips of the recording itself")
    return figures


def repeated(data: TrainingSet, times: int) -> TrainingSet:
    """A clip as if it had been spoken so many times: each frame is held in memory as often."""
    if times == 1:
        return data
    per_frame: dict[str, Any] = {name: np.concatenate([getattr(data, name)] * times) for name in _PER_FRAME}
    places = np.arange(times)[:, None] * data.count
    frames = {name: (places + getattr(data, name)).flatten() for name in ("training", "held_out")}
    return replace(data, **per_frame, **frames)


def beside_the_recording(arguments: argparse.Namespace) -> Figures:
    """How an avatar looks beside frames that it has not seen."""
    data = load(arguments.dataset)
    bundle = Bundle.read(arguments.bundle)
    tools = None
    if arguments.models is not None:
        models = arguments.models
        tools = Tools(models / "face_landmarker.task", models / "selfie_segmenter.tflite")
    comparison = Comparison(data, tools)
    heard = heard_codes(bundle, arguments.dataset, arguments.encoder, data.count)
    drawn = list(draw(bundle, data, heard, data.held_out))
    figures = comparison.measure("person", drawn, bounds=True)
    figures |= comparison.measure("with_true_lips", draw(bundle, data, data.lip, data.held_out))
    figures |= background_flicker(data, drawn)
    rows = [[data.frames[frame] for frame in data.held_out], drawn]
    if arguments.renders is not None:
        original = [np.round(stored_frame(arguments.renders, int(f))).astype(np.uint8) for f in data.held_out]
        figures |= comparison.measure("original", original)
        rows.append(original)
    still: list[npt.NDArray[np.uint8]] = []
    if tools is not None:
        silent, still = silence(bundle, tools)
        figures |= silent
    if arguments.output is not None:
        _leave(arguments.output, rows, still, read_wav(arguments.dataset / "audio.wav"), data.held_out)
    return figures


def _leave(
    output: Path,
    rows: list[list[npt.NDArray[np.uint8]]],
    still: list[npt.NDArray[np.uint8]],
    sound: npt.NDArray[np.int16],
    frames: npt.NDArray[np.int64],
) -> None:
    """Writes what there is to look at: pictures of `frames`, one row each for truth, avatar and original."""
    output.mkdir(parents=True, exist_ok=True)
    write_sheet(output / "strip.png", [evenly(row, _STRIP) for row in rows])
    if still:
        write_sheet(output / "silence.png", [evenly(still, _STRIP)])
    beside = (np.concatenate(pictures, 1) for pictures in zip(*rows, strict=True))
    heard = sound[frames[0] * PER_FRAME : (frames[-1] + 1) * PER_FRAME]
    write_video(output / "side_by_side.mp4", beside, heard, SAMPLE_RATE)


def measure(arguments: argparse.Namespace) -> Figures:
    """All figures that can be taken here."""
    if arguments.bundle is not None:
        return beside_the_recording(arguments)
    if arguments.device == "cuda":
        return training_on_a_gpu(arguments)
    cores = torch.get_num_threads()
    figures = kernels(cores)
    torch.set_num_threads(cores)
    give_cores_to_kernels()
    figures |= exactness()
    if arguments.dataset is None:
        return figures | {"cpu_training": Figure(None, "s", 900, note="no --dataset")}
    return figures | training_on_a_cpu(arguments.dataset, arguments.steps, arguments.sheet)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, help="a recording")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what trains")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="person", help="of a training on CUDA")
    parser.add_argument("--from-nothing", action="store_true", help="do not start as the demo avatar does")
    parser.add_argument("--repeat", type=int, default=1, help="train as if the clip were so often as long")
    parser.add_argument("--out", type=Path, help="where to write the avatar that CUDA trained")
    parser.add_argument("--bundle", type=Path, help="an avatar that was trained from it, with --encoder")
    parser.add_argument("--encoder", type=Path, help="the asset whisper-base")
    parser.add_argument("--models", type=Path, help="face_landmarker.task and the other; for lip landmarks")
    parser.add_argument("--renders", type=Path, help="the original's held-out renders, to compare with")
    parser.add_argument("--output", type=Path, help="folder for side_by_side.mp4, strip.png and silence.png")
    parser.add_argument("--steps", type=int, help="steps in all, instead of the preset's")
    parser.add_argument("--sheet", type=Path, help="PNG to write a contact sheet to")
    run("train", measure, parser)
