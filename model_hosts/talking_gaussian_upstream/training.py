"""One training by the original's scripts: export, mouth, face, fuse, import."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path
from typing import Iterator

import grpc
from viseme.host.v1 import host_pb2

from model_hosts.sdk import Cancellation, HostError
from model_hosts.talking_gaussian_upstream.commands import Commands
from model_hosts.talking_gaussian_upstream.output import Bar, CheckpointSaved, Evaluation, Fact
from model_hosts.talking_gaussian_upstream.process import run, script_environment
from model_hosts.talking_gaussian_upstream.settings import Settings
from model_hosts.talking_gaussian_upstream.workspace import FUSE_STEPS, STAGES, Workspace

_EXPORTED = 0.02
_TRAINED = 0.98
"""Shares of the whole that are done after the export, and before the import."""
_REPORT_SECONDS = 0.5
_BAR = "Training progress"
Trained = host_pb2.TrainResponse


class Training:
    """Trains the avatar of a request.

    Args:
        settings: Of the operator.
        request: What to train.
        encoder: Directory of the asset whisper-base.
        cancellation: Ends it; what the original has saved by then is gone on from.
    """

    def __init__(
        self, settings: Settings, request: host_pb2.TrainRequest, encoder: Path, cancellation: Cancellation
    ) -> None:
        self._settings = settings
        self._request = request
        self._encoder = encoder
        self._cancellation = cancellation
        self._workspace = Workspace(settings.workspace / request.name)
        self._place = self._workspace.training
        self._commands = Commands(settings, self._place)
        self._scripts = {**script_environment(), **device_environment(request.device)}
        self._steps = dict.fromkeys(STAGES, settings.iterations)
        self._steps["fuse"] = FUSE_STEPS
        self._psnr = 0.0
        self._reported = 0.0

    def run(self) -> Iterator[host_pb2.TrainResponse]:
        """Does it; yields what happens, at last the result.

        Raises:
            HostError: A script failed; with its last lines.
            Cancelled: Nobody waits any more.
        """
        request = self._request
        recording = Path(request.recording)
        facts = {
            "recording": str(recording),
            "iterations": self._settings.iterations,
            "audio_extractor": self._settings.audio_extractor,
        }
        if self._workspace.begin(Path(request.checkpoint), facts):
            yield _note("The training goes on from what the original had saved.")
        if request.seed:
            yield _note("The original takes no seed; it always begins with its own.")
        yield from self._export(recording)
        metrics: dict[str, float] = {}
        for stage in STAGES:
            self._psnr = 0.0
            yield from self._stage(stage)
            if stage == "face" and self._psnr:
                metrics["face_psnr"] = self._psnr
        yield from self._import()
        self._workspace.finish()
        yield Trained(result=Trained.Result(metrics=metrics))

    def _export(self, recording: Path) -> Iterator[host_pb2.TrainResponse]:
        data = self._place.data
        if (data / "transforms_train.json").is_file():
            return
        if not recording.is_dir():
            raise HostError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "FIELD_INVALID",
                f"There is no recording {recording}.",
                field="recording",
            )
        yield self._progress("export", 0, 1, 0, None, math.nan)
        fresh = data.with_name("data.new")
        shutil.rmtree(str(fresh), ignore_errors=True)
        # Only what was written to its end has the name that a later attempt trusts.
        command = self._commands.export(recording, self._encoder, fresh)
        yield from self._tell("export", "The export of the recording", command)
        # Where the original keeps it; later speech is heard as this was.
        shutil.copyfile(str(recording / "audio.wav"), str(fresh / "aud.wav"))
        shutil.rmtree(str(data), ignore_errors=True)
        fresh.replace(data)

    def _stage(self, stage: str) -> Iterator[host_pb2.TrainResponse]:
        steps = self._steps[stage]
        newest = self._place.newest(stage)
        damaged = [
            path for step, path in self._place.checkpoints(stage) if newest is None or step > newest[0]
        ]
        if damaged:
            yield _note(f"{damaged[0].name} is damaged; the stage goes on from an older state.")
        if newest is None or newest[0] < steps:
            # The original's fuse reads no checkpoint of its own.
            begun = newest if stage != "fuse" else None
            for earlier in STAGES[:2] if stage == "fuse" else ():
                self._place.repair_latest(earlier)
            command = self._commands.train(stage, begun[1] if begun else None)
            script = f"The original's train_{stage}.py"
            yield from self._tell(stage, script, command, begun[0] if begun else 0)
            newest = self._place.newest(stage)
            if newest is None or newest[0] < steps:
                raise HostError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "UPSTREAM_FAILED",
                    f"{script} ended without its checkpoint of step {steps}.",
                    "viseme hosts logs talking_gaussian_upstream",
                )
        self._place.repair_latest(stage)
        yield self._progress(stage, steps, steps, self._done(stage, steps), None, math.nan)

    def _import(self) -> Iterator[host_pb2.TrainResponse]:
        request = self._request
        yield self._progress("import", 0, 1, _TRAINED, None, math.nan)
        bundle = Path(request.bundle)
        card = (request.name, request.display_name, request.default_voice)
        command = self._commands.bundle(self._encoder, bundle, *card)
        yield from self._tell("import", "The import of the checkpoint", command)
        picture = bundle / "thumbnail.png"
        if picture.is_file():
            shutil.copyfile(str(picture), request.preview)

    def _tell(
        self, stage: str, what: str, command: list[str], begun: int = 0
    ) -> Iterator[host_pb2.TrainResponse]:
        """Runs a command and puts what it tells in the words of the protocol."""
        if stage in STAGES:
            directory, environment = self._settings.repository, self._scripts
        else:
            directory, environment = Path.cwd(), dict(os.environ)
        facts = run(what, command, directory, environment, self._cancellation)
        try:
            for fact in facts:
                yield from self._hear(stage, fact, begun)
        finally:
            facts.close()

    def _hear(self, stage: str, fact: Fact, begun: int) -> Iterator[host_pb2.TrainResponse]:
        if isinstance(fact, Evaluation):
            if fact.split == "test":
                self._psnr = fact.psnr
                yield _note(f"Stage {stage}, step {fact.step}: frames it has not seen: {fact.psnr:.1f} dB.")
        elif isinstance(fact, CheckpointSaved):
            yield _note(f"Stage {stage}, step {fact.step}: the original saved its checkpoint.")
        elif fact.name == _BAR:
            step = begun + fact.done
            if fact.loss is not None and math.isnan(fact.loss):
                raise HostError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "TRAINING_DIVERGED",
                    f"The original's loss in stage {stage} is no number at step {step}; it never recovers "
                    "from that.",
                    "Check that every frame of the recording shows the mouth, and train again.",
                )
            now = time.monotonic()
            if now - self._reported >= _REPORT_SECONDS or fact.done == fact.total:
                self._reported = now
                done = self._done(stage, step)
                left = self._seconds_left(stage, fact)
                yield self._progress(stage, step, self._steps[stage], done, fact.loss, left)

    def _done(self, stage: str, step: int) -> float:
        """Share of the whole that is done at a step."""
        before = sum(self._steps[earlier] for earlier in STAGES[: STAGES.index(stage)])
        share = (before + step) / sum(self._steps.values())
        return _EXPORTED + (_TRAINED - _EXPORTED) * min(1.0, share)

    def _seconds_left(self, stage: str, bar: Bar) -> float:
        """What the bar says, and the later stages at the same speed."""
        later = sum(self._steps[other] for other in STAGES[STAGES.index(stage) + 1 :])
        todo = bar.total - bar.done
        if math.isnan(bar.seconds_left) or todo <= 0 or bar.seconds_left <= 0:
            return math.nan
        return bar.seconds_left * (1 + later / todo)

    def _progress(
        self, stage: str, step: int, steps: int, done: float, loss: float | None, left: float
    ) -> host_pb2.TrainResponse:
        return Trained(
            progress=Trained.Progress(
                stage=stage,
                step=step,
                steps=steps,
                total=done,
                loss=loss or 0.0,
                psnr=self._psnr,
                seconds_left=0.0 if math.isnan(left) else left,
                device=self._request.device or "auto",
            )
        )


def device_environment(device: str) -> dict[str, str]:
    """Variables that give the original the GPU of a request.

    Args:
        device: `auto` or nothing for the one the host was given, else an index or a UUID.

    Raises:
        HostError: The original cannot use it.
    """
    if device.lower() in {"", "auto"}:
        return {}
    if device.isdigit() or device.upper().startswith(("GPU-", "MIG-")):
        return {"CUDA_VISIBLE_DEVICES": device}
    raise HostError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "DEVICE_UNSUITABLE",
        f"The original trains on an NVIDIA GPU that is named by its index or UUID, not on '{device}'.",
        "viseme gpus lists them",
    )


def _note(text: str) -> host_pb2.TrainResponse:
    return Trained(note=Trained.Note(text=text))
