"""A train host: prepares and trains by writing what a real one writes, and goes on from its checkpoint."""

# ruff: noqa: N802, ASYNC240 (the names are the protocol's; its files are tiny)

from __future__ import annotations

from pathlib import Path
from typing import Any

from viseme.host.v1 import host_pb2, host_pb2_grpc

from tests.doubles.avatar import make_avatar

STEPS = ("decode", "landmarks", "masks")
TRAINING_STEPS = 4

Prepare = host_pb2.PrepareResponse
Train = host_pb2.TrainResponse


class TrainDouble(host_pb2_grpc.TrainServiceServicer):
    """Finds what the plan's `findings` say; a call's outputs are its steps."""

    def __init__(self, host: Any) -> None:
        self._host = host

    async def Prepare(self, request: Any, context: Any) -> Any:
        async with self._host.call(context) as call:
            self._host.plan.requests.append(request)
            recording = Path(request.recording)
            recording.mkdir(exist_ok=True)
            assert Path(request.video).stat().st_size > 0
            for number, name in enumerate(STEPS, 1):
                done = recording / name
                if not done.exists():
                    await call.output()
                    done.touch()
                yield Prepare(step=Prepare.Step(name=name, fraction=1, total=number / len(STEPS)))
            (recording / "sheet.png").write_bytes(b"\x89PNG sheet")
            yield Prepare(result=Prepare.Result(frame_count=100, findings=self._host.findings))

    async def Train(self, request: Any, context: Any) -> Any:
        async with self._host.call(context) as call:
            self._host.plan.requests.append(request)
            assert (Path(request.recording) / "masks").exists()
            checkpoint = Path(request.checkpoint)
            done = int(checkpoint.read_text()) if checkpoint.exists() else 0
            if done:
                yield Train(note=Train.Note(text=f"Going on from step {done}."))
            for step in range(done + 1, TRAINING_STEPS + 1):
                await call.output()
                checkpoint.write_text(str(step))
                Path(request.preview).write_bytes(b"\x89PNG preview %d" % step)
                self._host.trained_steps.append(step)
                progress = Train.Progress(
                    stage="face",
                    step=step,
                    steps=TRAINING_STEPS,
                    total=step / TRAINING_STEPS,
                    loss=1 / step,
                    psnr=20 + step,
                    seconds_left=TRAINING_STEPS - step,
                    device="cpu",
                )
                yield Train(progress=progress)
            bundle = make_avatar(count=60, size=64, name=request.name)
            bundle.write(Path(request.bundle))
            yield Train(result=Train.Result(metrics={"psnr": 30.0}))
