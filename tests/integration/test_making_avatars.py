"""Making avatars over real gRPC: create, train, watch, cancel; hosts that die, servers that stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from viseme import AsyncClient
from viseme.host.v1 import host_pb2
from viseme.v1 import avatar_pb2, avatar_pb2_grpc

from server.errors import InternalError
from tests.doubles.ask import ask, refusal
from tests.doubles.training import TRAINING_STEPS
from tests.integration.conftest import StartWorld, World

HOST = "talking_gaussian_train"
Metadata = avatar_pb2.CreateAvatarRequest.Metadata
Progress = avatar_pb2.AvatarOperationMetadata
Avatar = avatar_pb2.Avatar


class Caller:
    """The calls of one client, without any library of ours."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self.avatars: Any = avatar_pb2_grpc.AvatarServiceStub(self._channel)
        self.operations: Any = operations_pb2_grpc.OperationsStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def create(self, data: bytes = b"a video", pieces: int = 3, **metadata: Any) -> Any:
        metadata = {"avatar_id": "ada", "consent": True, **metadata}

        async def requests() -> AsyncIterator[Any]:
            yield avatar_pb2.CreateAvatarRequest(metadata=Metadata(**metadata))
            step = max(1, len(data) // pieces)
            for start in range(0, len(data), step):
                yield avatar_pb2.CreateAvatarRequest(data=data[start : start + step])

        return await self.avatars.CreateAvatar(requests())

    async def done(self, operation: Any, seconds: float = 20) -> Any:
        """The operation when it has ended."""
        timeout = Duration()
        timeout.FromMilliseconds(int(seconds * 1000))
        request = operations_pb2.WaitOperationRequest(name=operation.name, timeout=timeout)
        ended = await self.operations.WaitOperation(request)
        assert ended.done, progress(ended)
        return ended

    async def get(self, name: str = "avatars/ada") -> Any:
        return await self.avatars.GetAvatar(avatar_pb2.GetAvatarRequest(name=name))

    async def train(self, **fields: Any) -> Any:
        return await self.avatars.TrainAvatar(avatar_pb2.TrainAvatarRequest(name="avatars/ada", **fields))

    async def cancel(self, operation: Any) -> None:
        await self.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=operation.name))


def progress(operation: Any) -> Progress:
    metadata = Progress()
    assert operation.metadata.Unpack(metadata)
    return metadata


def trained(operation: Any) -> Avatar:
    avatar = Avatar()
    assert operation.response.Unpack(avatar), operation.error
    return avatar


def reason(details: Any) -> str:
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in details)
    return str(info.reason)


async def refused(call: Awaitable[Any]) -> tuple[str, str]:
    """Status and reason of a call that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status: status_pb2.Status = rpc_status.from_call(caught.value)
    assert status.message.endswith(".") and "Traceback" not in status.message
    return caught.value.code().name, reason(status.details)


@pytest.fixture
async def start_caller() -> AsyncIterator[Callable[[World], Caller]]:
    callers: list[Caller] = []

    def start(world: World) -> Caller:
        callers.append(Caller(world.address))
        return callers[-1]

    yield start
    for caller in callers:
        await caller.close()


@pytest.fixture
def caller(world: World, start_caller: Callable[[World], Caller]) -> Caller:
    return start_caller(world)


async def test_a_video_becomes_an_avatar_who_answers(world: World, caller: Caller) -> None:
    operation = await caller.create(
        train=True,
        display_name="Ada",
        default_voice="voices/bm_george",
        size=256,
        training=avatar_pb2.TrainAvatarRequest(preset="quick", seed=7, device="cpu"),
    )
    assert operation.name.startswith("operations/") and not operation.done
    assert progress(operation).avatar == "avatars/ada"
    ended = await caller.done(operation)
    told = progress(ended)
    assert (told.task, told.stage, told.fraction) == (Progress.TASK_TRAIN, "face", 1)
    assert (told.step, told.steps, told.psnr, told.device) == (4, TRAINING_STEPS, 24, "cpu")
    assert told.create_time.seconds <= told.start_time.seconds and told.attempt == 1
    avatar = trained(ended)
    assert (avatar.name, avatar.state) == ("avatars/ada", Avatar.STATE_READY)
    assert avatar == await caller.get()
    prepare, train = world.hosts[HOST].plan.requests
    assert prepare.size == 256
    assert (train.preset, train.seed, train.device) == ("quick", 7, "cpu")
    assert (train.name, train.display_name, train.default_voice) == ("ada", "Ada", "voices/bm_george")
    reply, _ = await ask(world.address, text="Hello", avatar="ada")
    assert reply.video
    assert world.temporary_files() == []
    left = {path.name for path in (world.home / "store" / "recordings" / "ada").iterdir()}
    assert left == {"about.json", "findings.json", "video", "recording", "preview.png", "trained"}


async def test_preparing_and_training_apart(world: World, caller: Caller) -> None:
    finding = host_pb2.PrepareResponse.Finding(code="TOO_SHORT", message="It is short.", fix="Record more.")
    world.hosts[HOST].findings = [finding]
    await caller.done(await caller.create())
    avatar = await caller.get()
    assert (avatar.state, avatar.width, avatar.display_name) == (Avatar.STATE_PREPARED, 512, "ada")
    assert [(f.code, f.fix, f.refused) for f in avatar.findings] == [("TOO_SHORT", "Record more.", False)]
    error = await refusal(world.address, text="Hello", avatar="ada")
    assert (error.reason, error.status) == ("AVATAR_NOT_READY", "FAILED_PRECONDITION")
    preview = avatar_pb2.GetAvatarPreviewRequest(name="avatars/ada")
    assert (await caller.avatars.GetAvatarPreview(preview)).image == b"\x89PNG sheet"
    listed = await caller.avatars.ListAvatars(avatar_pb2.ListAvatarsRequest())
    assert [(a.name, a.state) for a in listed.avatars] == [
        ("avatars/ada", Avatar.STATE_PREPARED),
        ("avatars/demo", Avatar.STATE_READY),
    ]
    await caller.done(await caller.train())
    assert (await caller.avatars.GetAvatarPreview(preview)).image == b"\x89PNG preview 4"
    assert (await caller.get()).state == Avatar.STATE_READY
    # Once more, in place of the first.
    await caller.done(await caller.train(seed=1))
    assert world.hosts[HOST].trained_steps == [1, 2, 3, 4] * 2
    await caller.avatars.DeleteAvatar(avatar_pb2.DeleteAvatarRequest(name="avatars/ada"))
    assert await refused(caller.get()) == ("NOT_FOUND", "AVATAR_NOT_FOUND")
    assert list((world.home / "store" / "recordings").iterdir()) == []
    assert list((world.home / "store" / "avatars").iterdir()) == []


async def test_a_clip_that_is_refused(world: World, caller: Caller) -> None:
    finding = host_pb2.PrepareResponse.Finding(
        code="NO_FACE", message="There is no face in the video.", fix="Record a face.", refused=True
    )
    world.hosts[HOST].findings = [finding]
    ended = await caller.done(await caller.create(train=True))
    assert ended.error.message == "There is no face in the video."
    assert reason(ended.error.details) == "CLIP_REFUSED"
    avatar = await caller.get()
    assert avatar.state == Avatar.STATE_FAILED and avatar.findings[0].refused
    assert await refused(caller.train()) == ("INVALID_ARGUMENT", "FIELD_INVALID")
    # A better one may take its place.
    world.hosts[HOST].findings = []
    trained(await caller.done(await caller.create(train=True)))


async def test_one_operation_at_a_time(world: World, caller: Caller) -> None:
    plan = world.hosts.plan(HOST, hang=True, after=1)
    operation = await caller.create()
    await plan.reached.wait()
    assert (await caller.get()).state == Avatar.STATE_PREPARING
    assert await refused(caller.create()) == ("ALREADY_EXISTS", "AVATAR_EXISTS")
    assert await refused(caller.train()) == ("FAILED_PRECONDITION", "AVATAR_BUSY")
    request = operations_pb2.DeleteOperationRequest(name=operation.name)
    assert await refused(caller.operations.DeleteOperation(request)) == (
        "FAILED_PRECONDITION",
        "OPERATION_UNFINISHED",
    )
    await caller.cancel(operation)
    await plan.cancelled.wait()
    ended = await caller.done(operation)
    assert ended.error.code == grpc.StatusCode.CANCELLED.value[0]
    assert reason(ended.error.details) == "OPERATION_CANCELLED"
    assert (await caller.get()).state == Avatar.STATE_FAILED


async def test_two_trainings_of_one_avatar(world: World, caller: Caller) -> None:
    await caller.done(await caller.create())
    plan = world.hosts.plan(HOST, hang=True, after=2)
    first = await caller.train(request_id="one")
    await plan.reached.wait()
    assert (await caller.get()).state == Avatar.STATE_TRAINING
    assert (await caller.train(request_id="one")).name == first.name
    assert await refused(caller.train(request_id="two")) == ("FAILED_PRECONDITION", "AVATAR_BUSY")
    await caller.cancel(first)
    await caller.done(first)
    world.hosts.plan(HOST)
    second = await caller.done(await caller.train())
    # What the cancelled one had done is not done again.
    assert world.hosts[HOST].trained_steps == [1, 2, 3, 4]
    assert progress(second).message == "Going on from step 1."


async def test_a_host_that_dies_loses_nothing(world: World, caller: Caller) -> None:
    await caller.done(await caller.create())
    plan = world.hosts.plan(HOST, die=True, after=3)
    operation = await caller.train()
    await plan.reached.wait()
    world.hosts.plan(HOST)
    ended = await caller.done(operation)
    assert trained(ended).state == Avatar.STATE_READY
    assert progress(ended).attempt == 2
    assert world.hosts[HOST].trained_steps == [1, 2, 3, 4]


async def test_a_host_that_fails(world: World, caller: Caller) -> None:
    world.hosts.plan(HOST, fail=InternalError("The dog ate it."))
    ended = await caller.done(await caller.create())
    assert (ended.error.message, reason(ended.error.details)) == ("The dog ate it.", "INTERNAL")


async def test_the_next_server_goes_on(
    start_world: StartWorld, start_caller: Callable[[World], Caller]
) -> None:
    world = await start_world()
    caller = start_caller(world)
    await caller.done(await caller.create())
    plan = world.hosts.plan(HOST, hang=True, after=3)
    operation = await caller.train()
    await plan.reached.wait()
    await world.application.stop(0)
    again = await start_world()
    other = start_caller(again)
    ended = await other.done(operation)
    assert trained(ended).state == Avatar.STATE_READY
    assert again.hosts[HOST].trained_steps == [3, 4]
    assert progress(ended).attempt == 2


async def test_the_same_upload_twice(world: World, caller: Caller) -> None:
    first = await caller.create(request_id="mine")
    again = await caller.create(request_id="mine")
    assert first.name == again.name
    await caller.done(first)
    listed = await caller.operations.ListOperations(operations_pb2.ListOperationsRequest(page_size=10))
    assert [operation.name for operation in listed.operations] == [first.name]
    await caller.operations.DeleteOperation(operations_pb2.DeleteOperationRequest(name=first.name))
    request = operations_pb2.GetOperationRequest(name=first.name)
    assert await refused(caller.operations.GetOperation(request)) == ("NOT_FOUND", "OPERATION_NOT_FOUND")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no consent": ({"consent": False}, "FIELD_REQUIRED"),
    "no name": ({"avatar_id": ""}, "FIELD_REQUIRED"),
    "a name that is none": ({"avatar_id": "../ada"}, "FIELD_INVALID"),
    "a name that is taken": ({"avatar_id": "demo"}, "AVATAR_EXISTS"),
    "an odd size": ({"size": 100}, "FIELD_INVALID"),
    "an unknown recipe": ({"training": avatar_pb2.TrainAvatarRequest(preset="magic")}, "FIELD_INVALID"),
    "a voice that is none": ({"default_voice": "af_heart"}, "FIELD_INVALID"),
    "nothing": ({"data": b""}, "VIDEO_EMPTY"),
    "too much": ({"data": b"x" * 5000}, "VIDEO_TOO_LARGE"),
    "half of it": ({"data": b"x" * 50, "video_size_bytes": 100}, "VIDEO_TRUNCATED"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_uploads_that_are_refused_leave_nothing(
    start_world: StartWorld, start_caller: Callable[[World], Caller], case: str
) -> None:
    world = await start_world(limits={"max_video_bytes": 4000})
    metadata, expected = REFUSED[case]
    assert (await refused(start_caller(world).create(**metadata)))[1] == expected
    recordings = world.home / "store" / "recordings"
    assert not recordings.exists() or list(recordings.iterdir()) == []
    assert world.temporary_files() == []


async def test_the_uploader_goes_away(world: World, caller: Caller) -> None:
    arrived = asyncio.Event()

    async def requests() -> AsyncIterator[Any]:
        yield avatar_pb2.CreateAvatarRequest(metadata=Metadata(avatar_id="ada", consent=True))
        yield avatar_pb2.CreateAvatarRequest(data=b"x" * 100_000)
        arrived.set()
        await asyncio.Event().wait()

    call = caller.avatars.CreateAvatar(requests())
    await arrived.wait()
    call.cancel()
    recordings = world.home / "store" / "recordings"
    async with asyncio.timeout(5):
        while recordings.exists() and list(recordings.iterdir()):  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.01)
    async with AsyncClient(world.address) as client:
        assert [avatar.name for avatar in await client.avatars.list()] == ["avatars/demo"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("", "FIELD_REQUIRED"), ("avatars/ada", "FIELD_INVALID"), ("operations/00", "OPERATION_NOT_FOUND")],
)
async def test_operations_that_are_none(caller: Caller, name: str, expected: str) -> None:
    for request, method in (
        (operations_pb2.GetOperationRequest, "GetOperation"),
        (operations_pb2.CancelOperationRequest, "CancelOperation"),
        (operations_pb2.WaitOperationRequest, "WaitOperation"),
        (operations_pb2.DeleteOperationRequest, "DeleteOperation"),
    ):
        assert (await refused(getattr(caller.operations, method)(request(name=name))))[1] == expected
    listing = operations_pb2.ListOperationsRequest(filter="done")
    assert (await refused(caller.operations.ListOperations(listing)))[1] == "FIELD_INVALID"


async def test_only_avatars_with_a_recording_can_be_trained(caller: Caller) -> None:
    for name, expected in (
        ("avatars/demo", "AVATAR_NOT_FOUND"),
        ("avatars/nobody", "AVATAR_NOT_FOUND"),
        ("", "FIELD_REQUIRED"),
        ("hosts/whisper", "FIELD_INVALID"),
    ):
        request = avatar_pb2.TrainAvatarRequest(name=name)
        assert (await refused(caller.avatars.TrainAvatar(request)))[1] == expected
    preview = avatar_pb2.GetAvatarPreviewRequest(name="avatars/demo")
    assert (await refused(caller.avatars.GetAvatarPreview(preview)))[1] == "PREVIEW_NOT_FOUND"
