"""Making an avatar: its recording is prepared, then it is trained, both by the train host."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc.aio
from google.protobuf.message import Message
from viseme.host.v1 import host_pb2
from viseme.v1 import avatar_pb2

from server.dialogue.hosts import HostAccess
from server.errors import AvatarNotFound, ClipRefused, InternalError
from server.host_calls import calling, trainer
from server.operations.avatar_view import AvatarView
from server.operations.owned import bare
from server.operations.runner import Report
from server.operations.store import OperationRecord
from server.operations.training_lease import TrainingLeases
from server.operations.workplace import Training, Workplaces
from server.request_id import host_metadata
from server.store.paths import parse_resource_name
from server.store.recordings import Finding, StoredRecording
from server.store.tenants import Stores, TenantStores

CREATE: Final = "create"
TRAIN: Final = "train"

_PREPARING: Final = 0.4
"""Share of the preparation where a training follows."""
Metadata = avatar_pb2.AvatarOperationMetadata


class AvatarWork:
    """What the operations on avatars do.

    Args:
        hosts: The model hosts.
        host: Name of the train host.
        stores: What avatars are made of, and where finished ones go.
        leases: Gives trainings the right to a device.
        workplaces: Where avatars are made.
        fetch: Installs the model files of the train host that are missing. Blocks.
    """

    def __init__(
        self,
        *,
        hosts: HostAccess,
        host: str,
        stores: TenantStores,
        leases: TrainingLeases,
        workplaces: Workplaces,
        fetch: Callable[[], None] = lambda: None,
    ) -> None:
        self._hosts = hosts
        self._fetch = fetch
        self._host = host
        self._stores = stores
        self._leases = leases
        self._workplaces = workplaces

    async def create(self, record: OperationRecord, report: Report) -> Message:
        """Prepares a recording and, when that was asked for, trains the avatar."""
        request = avatar_pb2.CreateAvatarRequest.Metadata.FromString(record.request)
        recording = self._recording(record)
        progress = _begun(record)
        if record.attempt == 1:
            # What the blob store may have under this name is of another video.
            await self._workplaces.forget(self._of(record).avatars, recording.identifier)
        await self._prepare(recording, _Reporter(progress, report, 0, _PREPARING if request.train else 1))
        if request.train:
            await self._train_leased(record, request.training, _Reporter(progress, report, _PREPARING, 1))
        return self._avatar(record)

    async def train(self, record: OperationRecord, report: Report) -> Message:
        """Trains the avatar of a recording."""
        request = avatar_pb2.TrainAvatarRequest.FromString(record.request)
        await self._train_leased(record, request, _Reporter(_begun(record), report, 0, 1))
        return self._avatar(record)

    async def _prepare(self, recording: StoredRecording, told: _Reporter) -> None:
        told.progress.task = Metadata.TASK_PREPARE
        result: host_pb2.PrepareResponse.Result | None = None
        async with (
            self._channel(told) as channel,
            self._workplaces.preparing(recording, await self._hosts.site(self._host)) as place,
        ):
            call = trainer(channel).Prepare(
                host_pb2.PrepareRequest(
                    video=place.video, recording=place.recording, size=recording.about.size
                ),
                metadata=host_metadata(),
            )
            try:
                async with calling(self._host):
                    async for response in call:
                        if response.WhichOneof("payload") == "result":
                            result = response.result
                        else:
                            told.step(response.step)
            finally:
                call.cancel()
            if result is None:
                raise InternalError(f"The {self._host} host ended before the recording was prepared.")
        findings = [Finding(f.code, f.message, f.fix, f.refused) for f in result.findings]
        recording.keep_findings(findings)
        refused = [finding for finding in findings if finding.refused]
        if refused:
            raise ClipRefused(
                " ".join(finding.message for finding in refused),
                fix=" ".join(finding.fix for finding in refused),
                codes=",".join(finding.code for finding in refused),
                avatar=f"avatars/{recording.identifier}",
            )

    async def _train_leased(
        self, record: OperationRecord, wanted: avatar_pb2.TrainAvatarRequest, told: _Reporter
    ) -> None:
        told.progress.task = Metadata.TASK_TRAIN

        async def train(device: str) -> None:
            await self._train(record, wanted, device, told)

        await self._leases.run(record.name, wanted.device, told.say, train, record.owner)

    async def _train(
        self, record: OperationRecord, wanted: avatar_pb2.TrainAvatarRequest, device: str, told: _Reporter
    ) -> None:
        recording = self._recording(record)
        if recording.trained_by() == record.id:
            # Whoever had it before died when all was done but the operation itself.
            await self._workplaces.finished(recording)
            return
        # Beside the recording: it is moved into the store, which must be on the same file system.
        place = Path(tempfile.mkdtemp(prefix=".bundle-", dir=recording.directory))
        bundle = place / "bundle"
        done = False
        try:
            async with (
                self._channel(told) as channel,
                self._workplaces.training(
                    recording, bundle, await self._hosts.site(self._host), _turn(record)
                ) as there,
            ):
                call = trainer(channel).Train(
                    _request(recording, wanted, device, there), metadata=host_metadata()
                )
                try:
                    async with calling(self._host):
                        async for response in call:
                            done = told.training(response)
                finally:
                    call.cancel()
                if not done:
                    raise InternalError(f"The {self._host} host ended before the avatar was trained.")
            avatar = self._of(record).avatars.place(bundle, recording.identifier)
            await self._workplaces.keep_bundle(avatar)
            recording.keep_trained_by(record.id)
            # The next training starts anew, whatever it is asked to do.
            for left in recording.directory.glob(f"{recording.checkpoint.name}*"):
                left.unlink(missing_ok=True)
            await self._workplaces.finished(recording)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    @asynccontextmanager
    async def _channel(self, told: _Reporter) -> AsyncIterator[grpc.aio.Channel]:
        told.say(
            "Starting the host that trains; the first time its environment is built, which takes minutes."
        )
        await asyncio.to_thread(self._fetch)
        channel = await self._hosts.channel(self._host)
        told.say("")
        yield channel

    def _recording(self, record: OperationRecord) -> StoredRecording:
        name = bare(record.target)
        recording = self._of(record).recordings.get(parse_resource_name(name, "avatars").id)
        if recording is None:
            raise AvatarNotFound(f"There is no recording for {name} any more.", avatar=name)
        return recording

    def _avatar(self, record: OperationRecord) -> Message:
        return AvatarView(self._of(record)).message(bare(record.target), record, done=True)

    def _of(self, record: OperationRecord) -> Stores:
        return self._stores.of(record.owner)


def _turn(record: OperationRecord) -> str:
    """Sorts after those of earlier operations and of earlier leases of this one."""
    return f"{record.created:020.6f}-{record.token:08d}"


def _request(
    recording: StoredRecording, wanted: avatar_pb2.TrainAvatarRequest, device: str, place: Training
) -> host_pb2.TrainRequest:
    return host_pb2.TrainRequest(
        recording=place.recording,
        bundle=place.bundle,
        checkpoint=place.checkpoint,
        preview=place.preview,
        name=recording.identifier,
        display_name=recording.about.display_name,
        default_voice=recording.about.default_voice,
        preset=wanted.preset,
        device=device,
        seed=wanted.seed,
    )


class _Reporter:
    """Puts what the host tells into the metadata of the operation."""

    def __init__(self, progress: Metadata, report: Report, start: float, end: float) -> None:
        self.progress = progress
        self._report = report
        self._start, self._end = start, end

    def say(self, message: str) -> None:
        self.progress.message = message
        self._report(self.progress)

    def step(self, step: host_pb2.PrepareResponse.Step) -> None:
        progress = self.progress
        progress.stage = step.name
        progress.step, progress.steps = round(100 * step.fraction), 100
        self._advance(step.total)

    def training(self, response: host_pb2.TrainResponse) -> bool:
        """Takes a response of the training; whether it was the last."""
        kind = response.WhichOneof("payload")
        if kind == "note":
            self.say(response.note.text)
        elif kind == "progress":
            told, progress = response.progress, self.progress
            progress.stage, progress.step, progress.steps = told.stage, told.step, told.steps
            progress.loss, progress.psnr, progress.device = told.loss, told.psnr, told.device
            progress.remaining.FromNanoseconds(int(told.seconds_left * 1e9))
            self._advance(told.total)
        return kind == "result"

    def _advance(self, share: float) -> None:
        self.progress.fraction = self._start + (self._end - self._start) * share
        self._report(self.progress)


def _begun(record: OperationRecord) -> Metadata:
    progress = Metadata.FromString(record.metadata)
    progress.start_time.FromNanoseconds(int((record.started or 0) * 1e9))
    progress.attempt = record.attempt
    return progress
