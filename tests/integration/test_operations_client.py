"""The client library makes avatars and follows the work: synchronous and asynchronous, through faults."""

# ruff: noqa: ASYNC240 (the files are tiny)

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from viseme import AsyncClient, Client, Finding, Operation, VisemeError
from viseme.host.v1 import host_pb2

from server.errors import InternalError
from server.operations.desk import OperationDesk
from server.operations.store import OperationRecord
from tests.doubles.ask import check_sentence
from tests.integration.conftest import StartWorld, World

HOST = "talking_gaussian_train"


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(world.address) as client:
        yield client


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"a video" * 30_000)
    return path


async def watched(client: AsyncClient, operation: Operation, **options: Any) -> list[Operation]:
    return [state async for state in client.operations.watch(operation.name, **options)]


async def test_a_video_becomes_an_avatar(world: World, client: AsyncClient, clip: Path) -> None:
    sent: list[int] = []
    operation = await client.avatars.create(
        "ada",
        clip,
        consent=True,
        display_name="Ada",
        size=256,
        train=True,
        preset="quick",
        device="cpu",
        seed=7,
        default_voice="bm_george",
        on_sent=sent.append,
    )
    assert (operation.avatar_name, operation.task, operation.done) == ("avatars/ada", "prepare", False)
    assert sent == sorted(sent) and sent[-1] == clip.stat().st_size
    states = await watched(client, operation)
    assert all(before != after for before, after in itertools.pairwise(states))
    assert [state.done for state in states[:-1]] == [False] * (len(states) - 1)
    last = states[-1]
    assert last == await client.operations.get(operation.name) == await client.operations.wait(operation.name)
    assert (last.done, last.error, last.task, last.stage, last.device) == (True, None, "train", "face", "cpu")
    assert (last.step, last.steps, last.fraction, last.loss, last.psnr) == (4, 4, 1.0, 0.25, 24.0)
    assert last.remaining == 0 and last.attempt == 1
    assert last.start_time is not None and last.create_time <= last.start_time
    assert last.avatar == await client.avatars.get("ada")
    assert (last.avatar.state, last.avatar.operation) == ("READY", operation.name)
    assert last.avatar.findings == ()
    prepared, trained = world.hosts[HOST].plan.requests
    assert Path(prepared.video).read_bytes() == clip.read_bytes()
    assert (prepared.size, trained.preset, trained.device, trained.seed) == (256, "quick", "cpu", 7)
    assert (trained.display_name, trained.default_voice) == ("Ada", "voices/bm_george")


async def test_preparing_training_and_pictures(world: World, client: AsyncClient) -> None:
    finding = {"code": "TOO_SHORT", "message": "It is short.", "fix": "Record more."}
    world.hosts[HOST].findings = [host_pb2.PrepareResponse.Finding(**finding)]
    operation = await client.avatars.create("avatars/ada", [b"a ", b"video"], consent=True)
    ended = await client.operations.wait(operation.name)
    assert ended.avatar is not None and ended.avatar.state == "PREPARED"
    assert ended.avatar.findings == (Finding(**finding, refused=False),)
    assert (await client.avatars.preview("ada")).image == b"\x89PNG sheet"
    training = await client.avatars.train("ada", preset="laptop", seed=3)
    assert (training.task, training.psnr, training.loss, training.remaining) == ("train", None, None, None)
    assert (await client.operations.wait(training.name)).error is None
    picture = await client.avatars.preview("avatars/ada")
    assert picture.image == b"\x89PNG preview 4" and picture.create_time > training.create_time
    # Oldest first, until they are forgotten.
    assert [found.name for found in await client.operations.list()] == [operation.name, training.name]
    await client.operations.delete(operation.name)
    assert [found.name for found in await client.operations.list()] == [training.name]


async def test_a_request_that_is_repeated(client: AsyncClient) -> None:
    first = await client.avatars.create("ada", b"a video", consent=True, request_id="mine")
    assert (
        await client.avatars.create("ada", b"a video", consent=True, request_id="mine")
    ).name == first.name
    await client.operations.wait(first.name)
    trained = await client.avatars.train("ada", request_id="train")
    assert (await client.avatars.train("ada", request_id="train")).name == trained.name
    await client.operations.wait(trained.name)
    # Without an id of the caller's, each is a request of its own.
    assert (await client.avatars.train("ada")).name not in {first.name, trained.name}


async def test_a_clip_that_is_refused(world: World, client: AsyncClient) -> None:
    world.hosts[HOST].findings = [
        host_pb2.PrepareResponse.Finding(code="NO_FACE", message="No face.", fix="Show it.", refused=True)
    ]
    operation = await client.avatars.create("ada", b"a video", consent=True, train=True)
    ended = await client.operations.wait(operation.name)
    assert ended.avatar is None and ended.error is not None
    assert (ended.error.reason, ended.error.message, ended.error.fix) == (
        "CLIP_REFUSED",
        "No face.",
        "Show it.",
    )
    assert (ended.error.status, ended.error.retryable) == ("INVALID_ARGUMENT", False)
    avatar = await client.avatars.get("ada")
    assert (avatar.state, avatar.findings[0].refused) == ("FAILED", True)


async def test_work_that_fails(world: World, client: AsyncClient) -> None:
    world.hosts.plan(HOST, fail=InternalError("The dog ate it."))
    operation = await client.avatars.create("ada", b"a video", consent=True)
    error = (await watched(client, operation))[-1].error
    assert error is not None
    assert (error.reason, error.status, error.message) == ("INTERNAL", "INTERNAL", "The dog ate it.")


async def test_cancelling(world: World, client: AsyncClient) -> None:
    plan = world.hosts.plan(HOST, hang=True, after=2)
    operation = await client.avatars.create("ada", b"a video", consent=True)
    await plan.reached.wait()
    waiting = await client.operations.wait(operation.name, 0.05)
    assert not waiting.done and waiting.error is None and waiting.avatar is None
    with pytest.raises(VisemeError) as caught:
        await client.operations.delete(operation.name)
    assert caught.value.reason == "OPERATION_UNFINISHED"
    with pytest.raises(VisemeError) as caught:
        await client.avatars.train("ada")
    assert caught.value.reason == "AVATAR_BUSY"
    await client.operations.cancel(operation.name)
    last = (await watched(client, operation))[-1]
    assert last.error is not None
    assert (last.error.reason, last.error.status) == ("OPERATION_CANCELLED", "CANCELLED")
    await client.operations.cancel(operation.name)


@pytest.mark.parametrize("name", ["operations/0", "0"])
async def test_operations_that_are_not_there(client: AsyncClient, name: str) -> None:
    async def watch(name: str) -> None:
        async for _ in client.operations.watch(name):
            raise AssertionError("there is nothing to watch")

    calls = client.operations
    for call in (calls.get, calls.cancel, calls.delete, calls.wait, watch):
        with pytest.raises(VisemeError) as caught:
            await call(name)
        assert (caught.value.reason, caught.value.status) == ("OPERATION_NOT_FOUND", "NOT_FOUND")
        check_sentence(caught.value)


async def test_uploads_that_cannot_be(world: World, client: AsyncClient, clip: Path) -> None:
    def breaks_off() -> Iterator[bytes]:
        yield clip.read_bytes()
        raise OSError("the disk failed")

    with pytest.raises(FileNotFoundError):
        await client.avatars.create("ada", clip.with_name("missing.mp4"), consent=True)
    with pytest.raises(OSError, match="the disk failed"):
        await client.avatars.create("ada", breaks_off(), consent=True)
    with pytest.raises(TypeError):
        await client.avatars.create("ada", 7, consent=True)
    with pytest.raises(ValueError, match="train=True"):
        await client.avatars.create("ada", clip, consent=True, preset="quick")
    for video, consent, reason in ((clip, False, "FIELD_REQUIRED"), (b"", True, "VIDEO_EMPTY")):
        with pytest.raises(VisemeError) as caught:
            await client.avatars.create("ada", video, consent=consent)
        assert caught.value.reason == reason
        check_sentence(caught.value)
    with pytest.raises(VisemeError) as caught:
        await client.avatars.preview("demo")
    assert caught.value.reason == "PREVIEW_NOT_FOUND"
    assert await client.operations.list() == []
    assert [avatar.name for avatar in await client.avatars.list()] == ["avatars/demo"]
    assert world.temporary_files() == []


async def test_the_server_is_started_again_meanwhile(
    start_world: StartWorld, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, wait = asyncio.Event(), OperationDesk.wait

    async def told(desk: OperationDesk, name: str, seconds: float, owner: str) -> OperationRecord:
        waited.set()
        return await wait(desk, name, seconds, owner)

    # A client that has had no answer yet does not wait for the server: it asks for the wait after its first.
    monkeypatch.setattr(OperationDesk, "wait", told)
    world = await start_world()
    plan = world.hosts.plan(HOST, hang=True, after=2)
    seen, lost = asyncio.Event(), asyncio.Event()
    states: list[Operation] = []

    async def watch(client: AsyncClient, name: str) -> None:
        async for state in client.operations.watch(name, on_lost=lambda _: lost.set()):
            states.append(state)
            seen.set()

    async with AsyncClient(world.address) as client:
        operation = await client.avatars.create("ada", clip, consent=True, train=True)
        await plan.reached.wait()
        watching = asyncio.ensure_future(watch(client, operation.name))
        waiting = asyncio.ensure_future(client.operations.wait(operation.name))
        await seen.wait()
        await waited.wait()
        await world.application.stop(0)
        await lost.wait()
        await start_world(listen=world.address)
        async with asyncio.timeout(30):
            _, last = await asyncio.gather(watching, waiting)
    assert states[-1].avatar is not None and states[-1].avatar.state == "READY"
    assert states[-1].attempt == 2
    assert last == states[-1]


async def test_a_server_that_stays_away(start_world: StartWorld) -> None:
    world = await start_world()
    plan = world.hosts.plan(HOST, hang=True)
    told: list[VisemeError] = []
    async with AsyncClient(world.address) as client:
        operation = await client.avatars.create("ada", b"a video", consent=True)
        await plan.reached.wait()
        async with contextlib.aclosing(
            client.operations.watch(operation.name, patience=1, on_lost=told.append)
        ) as watching:
            assert not (await anext(watching)).done
            await world.application.stop(0)
            with pytest.raises(VisemeError) as caught:
                while not (await anext(watching)).done:
                    pass
        assert caught.value.reason in {"SERVER_UNREACHABLE", "SERVER_STOPPING"}
        assert told
        # One that has never answered is not waited for.
        for call in (anext(client.operations.watch(operation.name)), client.operations.wait(operation.name)):
            async with asyncio.timeout(5):
                with pytest.raises(VisemeError) as caught:
                    await call
            assert caught.value.reason == "SERVER_UNREACHABLE"


def test_synchronous_client(world_in_thread: World, clip: Path) -> None:
    def breaks_off() -> Iterator[bytes]:
        yield clip.read_bytes()
        raise OSError("the disk failed")

    sent: list[int] = []
    with Client(world_in_thread.address) as client:
        with pytest.raises(FileNotFoundError):
            client.avatars.create("ada", clip.with_name("missing.mp4"), consent=True)
        with pytest.raises(OSError, match="the disk failed"):
            client.avatars.create("ada", breaks_off(), consent=True)
        with pytest.raises(OSError, match="the disk failed"):
            client.avatars.import_("ada", breaks_off())
        with pytest.raises(VisemeError) as caught:
            client.avatars.create("ada", clip, consent=False)
        assert caught.value.reason == "FIELD_REQUIRED"
        operation = client.avatars.create("ada", clip, consent=True, on_sent=sent.append)
        assert sent[-1] == clip.stat().st_size
        states = list(client.operations.watch(operation.name))
        assert states[-1].avatar is not None and states[-1].avatar.state == "PREPARED"
        assert client.avatars.preview("ada").image == b"\x89PNG sheet"
        training = client.avatars.train("ada", preset="quick")
        assert client.operations.wait(training.name).avatar == client.avatars.get("ada")
        assert client.operations.wait(training.name, 0).done
        assert client.operations.get(training.name).psnr == 24
        assert [found.name for found in client.operations.list()] == [operation.name, training.name]
        client.operations.cancel(training.name)
        client.operations.delete(training.name)
        with pytest.raises(VisemeError) as caught:
            next(client.operations.watch(training.name))
        assert caught.value.reason == "OPERATION_NOT_FOUND"
        client.avatars.delete("ada")
        assert [avatar.name for avatar in client.avatars.list()] == ["avatars/demo"]
