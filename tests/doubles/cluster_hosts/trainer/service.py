"""Servicer of the train host. Each step is written to `steps.log` beside the nodes' homes."""

# ruff: noqa: N802 (the names are the protocol's)

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
from viseme.host.v1 import host_pb2, host_pb2_grpc

from model_hosts.sdk import Cancellation, Host
from tests.doubles.avatar import make_avatar

STEPS = 40
STEP_SECONDS = 0.15
Prepare = host_pb2.PrepareResponse
Train = host_pb2.TrainResponse


class TrainerHost(Host):
    name = "trainer"
    capabilities = ("train",)

    def services(self) -> Sequence[object]:
        return [Trainer()]


class Trainer(host_pb2_grpc.TrainServiceServicer):
    """Prepares in one step and trains in many short ones."""

    def Prepare(self, request: host_pb2.PrepareRequest, context: grpc.ServicerContext) -> Iterator[Prepare]:
        recording = Path(request.recording)
        (recording / "frames").mkdir(parents=True)
        (recording / "frames" / "0.png").write_bytes(Path(request.video).read_bytes())
        (recording / "sheet.png").write_bytes(b"\x89PNG sheet")
        yield Prepare(result=Prepare.Result(frame_count=100))

    def Train(self, request: host_pb2.TrainRequest, context: grpc.ServicerContext) -> Iterator[Train]:
        cancellation = Cancellation(context)
        home = Path(os.environ["VISEME_HOME"])
        assert (Path(request.recording) / "frames" / "0.png").read_bytes() == b"a video"
        checkpoint = Path(request.checkpoint)
        done = int(checkpoint.read_text()) if checkpoint.exists() else 0
        for step in range(done + 1, STEPS + 1):
            cancellation.wait(STEP_SECONDS)
            cancellation.check()
            with (home.parent / "steps.log").open("a") as log:
                log.write(f"{home.name} {step}\n")
            for path, text in ((checkpoint, str(step)), (Path(request.preview), f"\x89PNG {step}")):
                fresh = path.with_name(path.name + ".new")
                fresh.write_text(text)
                fresh.replace(path)
            yield Train(progress=Train.Progress(stage="face", step=step, steps=STEPS, total=step / STEPS))
        make_avatar(count=60, size=64, name=request.name).write(Path(request.bundle))
        yield Train(result=Train.Result(metrics={"psnr": 30.0}))
