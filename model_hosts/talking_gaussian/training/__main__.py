"""`python -m model_hosts.talking_gaussian.training`: trains an avatar from a recording.

The state is kept every 20 seconds, so the same command goes on after whatever ended it. SIGTERM and Ctrl-C
keep the state at once and end with status 75; a second one does not wait. Other statuses: 0, the bundle was
written; 1, an error, told in one sentence; 2, wrong arguments.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch

from model_hosts.talking_gaussian.bundle import Bundle, BundleInvalid
from model_hosts.talking_gaussian.images import encode_png
from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet, load
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.training import checkpoint
from model_hosts.talking_gaussian.training.cuda import DeviceUnsuitableError
from model_hosts.talking_gaussian.training.events import Outcome
from model_hosts.talking_gaussian.training.export import Card
from model_hosts.talking_gaussian.training.finish import finish
from model_hosts.talking_gaussian.training.lock import TrainingBusy, TrainingLock
from model_hosts.talking_gaussian.training.report import Report
from model_hosts.talking_gaussian.training.settings import PRESETS, Settings
from model_hosts.talking_gaussian.training.sheets import contact_sheet, telling_frames
from model_hosts.talking_gaussian.training.threads import give_cores_to_kernels, kernel_threads
from model_hosts.talking_gaussian.training.trainer import Intervals, Trainer, TrainingDiverged
from model_hosts.talking_gaussian.training.transfer import TransferUnsuitable, motion_for, recipe_for

STOPPED = 75
"""Exit status of a run that was stopped and can go on: EX_TEMPFAIL of sysexits.h."""

_LINE_EVERY = 5.0
"""Seconds between two lines of progress for people."""


def main(arguments: list[str] | None = None) -> int:
    """Trains, measures and writes the bundle; returns the exit status."""
    options = _parser().parse_args(arguments)
    report = Report(options.json, options.preview)
    stop = threading.Event()
    handlers = {number: signal.signal(number, _stopper(stop)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with TrainingLock(options.out):
            return _train(options, report, stop)
    except (
        DatasetInvalid,
        BundleInvalid,
        DeviceUnsuitableError,
        TransferUnsuitable,
        TrainingBusy,
        TrainingDiverged,
    ) as error:
        report.error(str(error))
    except OSError as error:
        report.error(f"{error.filename or options.out}: {error.strerror or error}")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 1


def _train(options: argparse.Namespace, report: Report, stop: threading.Event) -> int:
    began = time.monotonic()
    data = load(options.dataset)
    height, width = data.size
    report.say(f"{data.count} frames of {width}x{height} read in {time.monotonic() - began:.1f} s")
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    motion = _motion(options, data)
    settings = _settings(options, device)
    if motion is not None:
        settings = recipe_for(settings, data, motion)
        report.say(f"lips and lids start as those of {motion.info.display_name}")
    if device.type == "cpu":
        give_cores_to_kernels()
        minutes = settings.cpu_minutes(data.size, kernel_threads())
        report.say(f"training on {kernel_threads()} CPU threads takes {_spoken(minutes)}")
    path = options.checkpoint or options.out.with_name(options.out.name + ".state")
    intervals = Intervals(
        progress=1.0 if options.json else _LINE_EVERY, preview=5.0 if options.preview else math.inf
    )
    trainer = Trainer(data, settings, device, report.event, path, intervals, motion)
    if trainer.run(stop.is_set) is Outcome.STOPPED:
        report.stopped(path)
        return STOPPED
    card = Card(
        options.name,
        options.display_name or options.name,
        options.description,
        options.synthetic,
        options.license,
        options.attribution,
        options.voice,
    )
    bundle, metrics = finish(trainer, options.dataset, card, options.out, options.encoder)
    if options.sheet:
        options.sheet.write_bytes(encode_png(contact_sheet(trainer, telling_frames(data))))
    if not options.checkpoint:
        checkpoint.remove(path)
    counts = {name: branch.count for name, branch in bundle.info.branches.items()}
    report.finished({"metrics": metrics, "seconds": trainer.seconds, "gaussians": counts})
    return 0


def _motion(options: argparse.Namespace, data: TrainingSet) -> Bundle | None:
    if options.motion is None:
        return motion_for(data)
    return None if options.motion == "none" else Bundle.read(Path(options.motion))


def _settings(options: argparse.Namespace, device: torch.device) -> Settings:
    settings = PRESETS[options.preset or ("laptop" if device.type == "cpu" else "quick")]
    if options.steps:
        settings = settings.with_steps(options.steps)
    return replace(settings, seed=options.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_hosts.talking_gaussian.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dataset", type=Path, required=True, help="recording: written by preprocess or tools/studio"
    )
    parser.add_argument("--out", type=Path, required=True, help="bundle directory or .zip to write")
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="quick: a first look; demo: the avatar that is shipped; person: somebody who was recorded; "
        "laptop: a computer without a GPU. default: quick with CUDA, laptop without",
    )
    parser.add_argument("--steps", type=_positive, help="steps in all, shared by the stages as in the preset")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another avatar")
    parser.add_argument(
        "--from",
        dest="motion",
        metavar="BUNDLE",
        help="avatar whose motion this one starts with, or none; default: the demo avatar for a person who "
        "was recorded, none for one who was drawn",
    )
    parser.add_argument("--device", help="cuda or cpu; default: cuda when there is one")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="keep the state here, also when done; default: OUT.state, removed when done",
    )
    parser.add_argument("--json", action="store_true", help="tell events as JSON lines on standard output")
    parser.add_argument(
        "--preview", type=Path, metavar="PNG", help="draw a held-out frame beside its truth here every 5 s"
    )
    parser.add_argument(
        "--encoder",
        type=Path,
        metavar="DIR",
        help="asset whisper-base, to fit the lips to the person's own speech",
    )
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="write a contact sheet here when done")
    parser.add_argument("--name", default="avatar", help="resource id")
    parser.add_argument("--display-name", help="default: the name")
    parser.add_argument("--description", default="")
    parser.add_argument("--synthetic", action="store_true", help="the person does not exist")
    parser.add_argument("--license", default="")
    parser.add_argument("--attribution", default="")
    parser.add_argument("--voice", default="voices/af_heart")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number of steps")
    return value


def _spoken(minutes: float) -> str:
    """A guessed time in words."""
    if minutes < 1.5:
        return "about a minute"
    if minutes < 90:
        return f"about {minutes:.0f} minutes"
    return f"about {minutes / 60:.0f} hours; an NVIDIA GPU or --preset laptop takes minutes"


def _stopper(stop: threading.Event) -> Callable[[int, FrameType | None], None]:
    """A signal handler that asks for a stop, and the second time ends the process."""

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    return handle


if __name__ == "__main__":
    sys.exit(main())
