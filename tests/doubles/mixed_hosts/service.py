"""A host that trains: slowly, from its checkpoint on, and with a record of all that it did.

The record is the file `done` beside the checkpoint, a line an event: the number of a step that is done, or
`double` when somebody else was at work on the same avatar.
"""

# ruff: noqa: N802 (the names are the protocol's)

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
from doubles.avatar import make_avatar
from viseme.host.v1 import host_pb2, host_pb2_grpc

from model_hosts.sdk import Cancellation, Host

STEPS = 12
_STEP_SECONDS = 0.08

Prepare = host_pb2.PrepareResponse
Train = host_pb2.TrainResponse


class TrainerHost(Host):
    name = "trainer"
    capabilities = ("train",)

    def services(self) -> Sequence[object]:
        return [Trainer()]


class Trainer(host_pb2_grpc.TrainServiceServicer):
    def Prepare(self, request: host_pb2.PrepareRequest, context: grpc.ServicerContext) -> Iterator[Prepare]:
        cancellation = Cancellation(context)
        recording = Path(request.recording)
        recording.mkdir(exist_ok=True)
        with _alone(recording.with_name("done")):
            cancellation.wait(_STEP_SECONDS)
            cancellation.check()
            (recording / "masks").touch()
            yield Prepare(step=Prepare.Step(name="masks", fraction=1, total=1))
        yield Prepare(result=Prepare.Result(frame_count=100))

    def Train(self, request: host_pb2.TrainRequest, context: grpc.ServicerContext) -> Iterator[Train]:
        cancellation = Cancellation(context)
        checkpoint = Path(request.checkpoint)
        with _alone(checkpoint.with_name("done")) as record:
            for step in range(_read(checkpoint) + 1, STEPS + 1):
                cancellation.wait(_STEP_SECONDS)
                cancellation.check()
                os.write(record, b"%d\n" % step)
                fresh = checkpoint.with_name("checkpoint.new")
                fresh.write_text(str(step))
                fresh.replace(checkpoint)
                yield Train(
                    progress=Train.Progress(
                        stage="face", step=step, steps=STEPS, total=step / STEPS, device="cpu"
                    )
                )
            make_avatar(count=60, size=64, name=request.name).write(Path(request.bundle))
        yield Train(result=Train.Result(metrics={"psnr": 30.0}))


def _read(checkpoint: Path) -> int:
    return int(checkpoint.read_text()) if checkpoint.exists() else 0


@contextmanager
def _alone(path: Path) -> Iterator[int]:
    """Opens the record; writes into it when another process is at work here."""
    record = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        try:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.write(record, b"double\n")
        yield record
    finally:
        os.close(record)
