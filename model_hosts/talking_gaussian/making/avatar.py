"""One training as the host runs it: its request in, its progress out, the bundle on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from viseme.host.v1 import host_pb2

from model_hosts.talking_gaussian.images import encode_png
from model_hosts.talking_gaussian.making.devices import choose_device, device_name
from model_hosts.talking_gaussian.preprocess.dataset import load
from model_hosts.talking_gaussian.training.events import (
    Event,
    Note,
    Outcome,
    Preview,
    Progress,
    StageMetrics,
)
from model_hosts.talking_gaussian.training.export import Card
from model_hosts.talking_gaussian.training.finish import finish
from model_hosts.talking_gaussian.training.settings import PRESETS, Settings
from model_hosts.talking_gaussian.training.threads import give_cores_to_kernels
from model_hosts.talking_gaussian.training.trainer import Trainer
from model_hosts.talking_gaussian.training.transfer import motion_for, recipe_for

Trained = host_pb2.TrainResponse
_DEFAULT_VOICE: Final = "voices/af_heart"
_FINISHING: Final = 0.97
"""Share of the whole that is done when all steps are: measuring and writing come after."""


class Stopped(Exception):  # noqa: N818 (reads as a statement)
    """The training was stopped at a step boundary, its state kept."""


def train_avatar(
    request: host_pb2.TrainRequest,
    tell: Callable[[Trained], None],
    stop: Callable[[], bool],
    encoder: Path | None,
    threads: int,
) -> None:
    """Trains the avatar of a request and writes its bundle.

    Args:
        request: What to train.
        tell: Takes progress, notes and the result.
        stop: Whether nobody waits for it any more.
        encoder: Directory of the asset `whisper-base`, when it is installed.
        threads: That may be used.

    Raises:
        Stopped: `stop` said so; the same request goes on from the checkpoint.
        DatasetInvalid: The recording cannot be used.
        DeviceUnsuitableError: There is no such device, or it cannot train.
        TrainingDiverged: It ran away again and again.
        TrainingBusy: Another process trains it.
    """
    device = choose_device(request.device)
    torch.set_num_threads(threads)
    if device.type == "cpu":
        give_cores_to_kernels()
    recording = Path(request.recording)
    listener = _Listener(tell, Path(request.preview), device_name(device))
    data = load(recording)
    settings, motion = _settings(request, device), motion_for(data)
    if motion is not None:
        name = motion.info.display_name
        tell(Trained(note=Trained.Note(text=f"Lips and lids start as those of {name}.")))
    trainer = Trainer(
        data,
        settings if motion is None else recipe_for(settings, data, motion),
        device,
        listener.hear,
        Path(request.checkpoint),
        motion=motion,
    )
    if trainer.run(stop) is Outcome.STOPPED:
        raise Stopped
    card = Card(
        name=request.name,
        display_name=request.display_name or request.name,
        default_voice=request.default_voice or _DEFAULT_VOICE,
    )
    _, metrics = finish(trainer, recording, card, Path(request.bundle), encoder, threads)
    tell(Trained(result=Trained.Result(metrics=metrics)))


def _settings(request: host_pb2.TrainRequest, device: torch.device) -> Settings:
    preset = request.preset or ("person" if device.type == "cuda" else "laptop")
    return replace(PRESETS[preset], seed=request.seed)


class _Listener:
    """Tells what happens in a training in the words of the protocol."""

    def __init__(self, tell: Callable[[Trained], None], preview: Path, device: str) -> None:
        self._tell = tell
        self._preview = preview
        self._device = device

    def hear(self, event: Event) -> None:
        match event:
            case Progress():
                self._tell(Trained(progress=self._progress(event)))
            case Preview():
                fresh = self._preview.with_name(self._preview.name + ".new")
                fresh.write_bytes(encode_png(event.picture))
                fresh.replace(self._preview)
            case Note():
                self._tell(Trained(note=Trained.Note(text=_sentence(event.message))))
            case StageMetrics():
                figures = ", ".join(f"{name} {value:.1f} dB" for name, value in event.metrics.items())
                if figures:
                    said = f"Stage {event.stage} is done; frames it has not seen: {figures}."
                    self._tell(Trained(note=Trained.Note(text=said)))

    def _progress(self, event: Progress) -> Trained.Progress:
        return Trained.Progress(
            stage=event.stage,
            step=event.step,
            steps=event.steps,
            total=_FINISHING * event.fraction,
            loss=event.loss,
            psnr=event.psnr,
            seconds_left=event.seconds_left,
            device=self._device,
        )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
