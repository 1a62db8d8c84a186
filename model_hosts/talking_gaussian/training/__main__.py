"""`python -m model_hosts.talking_gaussian.training`: trains an avatar from a recording."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from model_hosts.talking_gaussian.bundle import BundleInvalid
from model_hosts.talking_gaussian.images import encode_png
from model_hosts.talking_gaussian.preprocess.dataset import load
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.training.evaluate import evaluate
from model_hosts.talking_gaussian.training.export import Card, export_bundle
from model_hosts.talking_gaussian.training.rasterise import DeviceUnsuitableError
from model_hosts.talking_gaussian.training.settings import PRESETS
from model_hosts.talking_gaussian.training.sheets import contact_sheet, telling_frames
from model_hosts.talking_gaussian.training.trainer import Progress, Trainer


def main(arguments: list[str] | None = None) -> int:
    """Trains, measures and writes the bundle; returns the exit status."""
    options = _parser().parse_args(arguments)
    settings = PRESETS[options.preset]
    if options.steps:
        settings = settings.with_steps(options.steps)
    settings = replace(settings, seed=options.seed)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        began = time.monotonic()
        data = load(options.dataset)
        _say(f"{data.count} frames of {data.size[1]}x{data.size[0]} read in {time.monotonic() - began:.1f} s")
        trainer = Trainer(data, settings, device, _show, options.checkpoint)
        trainer.run()
        metrics = evaluate(trainer, data.held_out)
        metrics |= {
            f"training_{name}": value for name, value in evaluate(trainer, data.training[::16]).items()
        }
        card = Card(
            options.name,
            options.display_name or options.name,
            options.description,
            options.synthetic,
            options.license,
            options.attribution,
            options.voice,
        )
        bundle = export_bundle(trainer, card, metrics, options.out)
        if options.sheet:
            options.sheet.write_bytes(encode_png(contact_sheet(trainer, telling_frames(data))))
    except (DatasetInvalid, BundleInvalid, DeviceUnsuitableError) as error:
        _say(f"error: {error}")
        return 1
    counts = {name: branch.count for name, branch in bundle.info.branches.items()}
    _say(json.dumps({"metrics": metrics, "seconds": trainer.seconds, "gaussians": counts}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_hosts.talking_gaussian.training", description=__doc__
    )
    parser.add_argument(
        "--dataset",
        type=Path,
        required=True,
        help="recording: directory written by tools/studio or preprocess",
    )
    parser.add_argument("--out", type=Path, required=True, help="bundle directory or .zip to write")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="quick")
    parser.add_argument("--steps", type=int, help="steps in all, shared by the stages as in the preset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cuda or cpu; default: cuda when there is one")
    parser.add_argument("--checkpoint", type=Path, help="file to keep the state in and to go on from")
    parser.add_argument("--sheet", type=Path, help="PNG to write a contact sheet to")
    parser.add_argument("--name", default="avatar", help="resource id")
    parser.add_argument("--display-name", help="default: the name")
    parser.add_argument("--description", default="")
    parser.add_argument("--synthetic", action="store_true", help="the person does not exist")
    parser.add_argument("--license", default="")
    parser.add_argument("--attribution", default="")
    parser.add_argument("--voice", default="voices/af_heart")
    return parser


def _show(progress: Progress) -> None:
    if progress.step % 250 == 0 or progress.step == progress.steps:
        _say(
            f"{progress.stage} {progress.step}/{progress.steps}  loss {progress.loss:.4f}"
            f"  psnr {progress.psnr:.2f}  {progress.seconds_left:.0f} s left"
        )


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
