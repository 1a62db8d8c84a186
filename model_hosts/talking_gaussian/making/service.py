"""TrainService of the host protocol: a video becomes a recording, a recording an avatar."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import grpc
from viseme.host.v1 import host_pb2, host_pb2_grpc

from model_hosts.sdk import Arguments, Cancellation, HostError
from model_hosts.talking_gaussian.making.avatar import Stopped, train_avatar
from model_hosts.talking_gaussian.preprocess.gate import ClipRefused, Finding, Severity
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.preprocess.recording import SIZES, Options, Step, prepare
from model_hosts.talking_gaussian.preprocess.tools import Tools, ToolsMissing
from model_hosts.talking_gaussian.training.cuda import DeviceUnsuitableError
from model_hosts.talking_gaussian.training.lock import TrainingBusy
from model_hosts.talking_gaussian.training.trainer import TrainingDiverged

FACE_LANDMARKER: Final = "face-landmarker"
SELFIE_SEGMENTER: Final = "selfie-segmenter"
AUDIO_ENCODER: Final = "whisper-base"
_POLL_SECONDS: Final = 0.2

_FAILED: Final = grpc.StatusCode.FAILED_PRECONDITION
_REASONS: Final[dict[type[BaseException], tuple[grpc.StatusCode, str, str | None]]] = {
    Stopped: (grpc.StatusCode.CANCELLED, "OPERATION_CANCELLED", None),
    DeviceUnsuitableError: (_FAILED, "DEVICE_UNSUITABLE", None),
    TrainingDiverged: (_FAILED, "TRAINING_DIVERGED", "Train again with another seed."),
    TrainingBusy: (_FAILED, "AVATAR_BUSY", None),
    ToolsMissing: (_FAILED, "ASSET_MISSING", "viseme doctor"),
    DatasetInvalid: (grpc.StatusCode.INVALID_ARGUMENT, "CLIP_REFUSED", None),
}

Prepared = host_pb2.PrepareResponse
Trained = host_pb2.TrainResponse
Response = TypeVar("Response", Prepared, Trained)


class TrainServicer(host_pb2_grpc.TrainServiceServicer):
    """Prepares and trains, one call at a time: either takes all that the machine has.

    Args:
        arguments: Of the host.
    """

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._turn = threading.Lock()

    def Prepare(  # noqa: N802 (the protocol's name)
        self, request: host_pb2.PrepareRequest, context: grpc.ServicerContext
    ) -> Iterator[host_pb2.PrepareResponse]:
        """Makes a recording of a video."""
        if request.size not in SIZES:
            raise _invalid(f"size must be {' or '.join(map(str, SIZES))}, not {request.size}.", "size")
        tools = self._tools()

        def work(tell: Callable[[Prepared], None], cancellation: Cancellation) -> None:
            def step(step: Step) -> None:
                cancellation.check()
                tell(Prepared(step=Prepared.Step(name=step.name, fraction=step.fraction, total=step.done)))

            try:
                recording = prepare(
                    Path(request.video), Path(request.recording), tools, step, Options(size=request.size)
                )
            except ClipRefused as refusal:
                tell(_findings(refusal.findings, 0))
            else:
                tell(_findings(recording.findings, recording.frames))

        return self._run(work, Cancellation(context))

    def Train(  # noqa: N802 (the protocol's name)
        self, request: host_pb2.TrainRequest, context: grpc.ServicerContext
    ) -> Iterator[host_pb2.TrainResponse]:
        """Trains an avatar from a recording."""
        encoder = self._arguments.assets.get(AUDIO_ENCODER)

        def work(tell: Callable[[Trained], None], cancellation: Cancellation) -> None:
            train_avatar(request, tell, cancellation.is_set, encoder, self._arguments.threads)

        return self._run(work, Cancellation(context))

    def _tools(self) -> Tools:
        assets = self._arguments
        return Tools(
            face_landmarker=assets.asset(FACE_LANDMARKER) / "face_landmarker.task",
            selfie_segmenter=assets.asset(SELFIE_SEGMENTER) / "selfie_segmenter.tflite",
            encoder=assets.assets.get(AUDIO_ENCODER),
        )

    def _run(
        self,
        work: Callable[[Callable[[Response], None], Cancellation], None],
        cancellation: Cancellation,
    ) -> Iterator[Response]:
        """Gives what the work tells, in a thread that a slow reader does not hold up.

        Raises:
            HostError: The work failed in a way that its caller should hear about.
            Cancelled: Nobody waits any more; the work has ended when this is raised.
        """
        told: queue.SimpleQueue[Response | BaseException | None] = queue.SimpleQueue()

        def run() -> None:
            try:
                work(told.put, cancellation)
            except BaseException as error:
                told.put(error)
            else:
                told.put(None)

        while not self._turn.acquire(timeout=_POLL_SECONDS):
            cancellation.check()
        try:
            thread = threading.Thread(target=run, name="making", daemon=True)
            thread.start()
            while (response := told.get()) is not None:
                if isinstance(response, BaseException):
                    cancellation.check()
                    raise _as_host_error(response)
                if not cancellation.is_set():
                    yield response
            thread.join()
        finally:
            # The caller may have gone in the middle: what was begun winds down before the next may begin.
            cancellation.set()
            thread.join()
            self._turn.release()


def _findings(findings: list[Finding], frames: int) -> Prepared:
    told = [
        Prepared.Finding(
            code=finding.code,
            message=finding.message("en"),
            fix=finding.advice("en"),
            refused=finding.severity is Severity.REFUSE,
        )
        for finding in findings
    ]
    return Prepared(result=Prepared.Result(frame_count=frames, findings=told))


def _as_host_error(error: BaseException) -> BaseException:
    """The error as the caller should hear of it; itself when nobody expected it."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return HostError(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL", "There is no room left on the disk."
        )
    for kind, (status, reason, fix) in _REASONS.items():
        if isinstance(error, kind):
            text = str(error) or "it was stopped"
            return HostError(status, reason, f"{text[0].upper()}{text[1:].rstrip('.')}.", fix)
    return error


def _invalid(message: str, field: str) -> HostError:
    return HostError(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", message, field=field)
