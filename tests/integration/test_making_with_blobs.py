"""Making avatars with a blob store: what one machine had done is there for the next one."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from google.longrunning import operations_pb2
from viseme.v1 import avatar_pb2

from server.operations.workplace import Workplaces
from server.store.avatars import AvatarStore
from server.store.blobs import BlobSettings, open_blobs
from server.store.trees import TreeStore
from tests.doubles.avatar import make_avatar
from tests.integration.conftest import StartWorld, World
from tests.integration.test_making_avatars import HOST, Caller, progress, refused, trained

pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture
def store(tmp_path: Path) -> dict[str, str]:
    return {"blobs": f"file://{tmp_path}/blobs"}


@pytest.fixture
async def start_caller() -> AsyncIterator[Callable[[World], Caller]]:
    callers: list[Caller] = []

    def start(world: World) -> Caller:
        callers.append(Caller(world.address))
        return callers[-1]

    yield start
    for caller in callers:
        await caller.close()


def keys(store: dict[str, str]) -> set[str]:
    """Trees in the blob store, by kind and avatar."""
    found = open_blobs(BlobSettings(store["blobs"])).keys("")
    return {"/".join(key.split("/")[:2]) for key in found if key.endswith("/tree.json")}


async def test_a_training_goes_on_where_its_checkpoint_was_lost(
    start_world: StartWorld, start_caller: Callable[[World], Caller], store: dict[str, str]
) -> None:
    world = await start_world(store=store)
    caller = start_caller(world)
    await caller.done(await caller.create())
    assert keys(store) == {"recordings/ada"}
    plan = world.hosts.plan(HOST, hang=True, after=3)
    operation = await caller.train()
    await plan.reached.wait()
    # The keeper publishes a last time when the call ends.
    await world.application.stop(0)
    assert keys(store) == {"recordings/ada", "trainings/ada"}
    recording = world.home / "store" / "recordings" / "ada"
    (recording / "training.safetensors").unlink()
    again = await start_world(store=store)
    ended = await start_caller(again).done(operation)
    assert trained(ended).state == avatar_pb2.Avatar.STATE_READY
    assert again.hosts[HOST].trained_steps == [3, 4]
    assert progress(ended).attempt == 2
    assert keys(store) == {"recordings/ada", "bundles/ada"}


async def test_another_machine_has_the_avatars(
    start_world: StartWorld, start_caller: Callable[[World], Caller], store: dict[str, str]
) -> None:
    world = await start_world(store=store)
    caller = start_caller(world)
    await caller.done(await caller.create(train=True))
    bundle = world.home / "store" / "avatars" / "ada"
    model = (bundle / "model.safetensors").read_bytes()
    await world.application.stop(0)
    shutil.rmtree(world.home)
    again = await start_world(store=store)
    await again.application._restoring
    assert (bundle / "model.safetensors").read_bytes() == model
    other = start_caller(again)
    assert (await other.get()).state == avatar_pb2.Avatar.STATE_READY
    # Deleted is deleted everywhere.
    await other.avatars.DeleteAvatar(avatar_pb2.DeleteAvatarRequest(name="avatars/ada"))
    assert keys(store) == set()


async def test_tenants_have_keys_of_their_own(tmp_path: Path, store: dict[str, str]) -> None:
    workplaces = Workplaces(TreeStore(open_blobs(BlobSettings(store["blobs"]))))
    limits = {"max_bundle_bytes": 1 << 20, "max_unpacked_bytes": 1 << 20}
    for machine in ("first", "second"):
        stores = [
            AvatarStore(tmp_path / machine / place / "avatars", **limits)
            for place in ("store", "store/tenants/acme", "store/tenants/zenith")
        ]
        if machine == "first":
            for number, each in enumerate(stores[:2]):
                make_avatar(count=60 + number, size=64, name="ada").write(tmp_path / f"bundle{number}")
                await workplaces.keep_bundle(each.place(tmp_path / f"bundle{number}", "ada"))
    for each in stores:
        await workplaces.restore(each)
    counts = [[avatar.info.gaussian_count for avatar in each.list() if not avatar.builtin] for each in stores]
    assert counts == [[60], [61], []]
    await workplaces.forget(stores[0], "ada")
    assert keys(store) == {"tenants/acme"}


async def test_another_video_does_not_go_on_from_the_last_one(
    start_world: StartWorld, start_caller: Callable[[World], Caller], store: dict[str, str]
) -> None:
    world = await start_world(store=store)
    caller = start_caller(world)
    await caller.done(await caller.create())
    plan = world.hosts.plan(HOST, hang=True, after=3)
    operation = await caller.train()
    await plan.reached.wait()
    await caller.cancel(operation)
    await caller.done(operation)
    assert keys(store) == {"recordings/ada", "trainings/ada"}
    # This machine forgets it while the blob store does not.
    shutil.rmtree(world.home / "store" / "recordings" / "ada")
    world.hosts.plan(HOST)
    trained(await caller.done(await caller.create(b"another video", train=True, display_name="Ada B.")))
    assert world.hosts[HOST].trained_steps == [1, 2, 1, 2, 3, 4]
    assert keys(store) == {"recordings/ada", "bundles/ada"}


async def test_the_store_is_away_and_comes_back(
    start_world: StartWorld, start_caller: Callable[[World], Caller], tmp_path: Path, store: dict[str, str]
) -> None:
    # A file where the directory should be: nothing can be stored, as when its disk is not mounted.
    (tmp_path / "blobs").write_bytes(b"")
    caller = start_caller(await start_world(store=store))
    operation = await caller.create(train=True)
    request = operations_pb2.GetOperationRequest(name=operation.name)
    async with asyncio.timeout(20):
        while progress(await caller.operations.GetOperation(request)).attempt < 2:  # noqa: ASYNC110 (as a client)
            await asyncio.sleep(0.05)
    # What needs the store is refused with a sentence; nothing is done by halves.
    delete = avatar_pb2.DeleteAvatarRequest(name="avatars/demo2")
    assert await refused(caller.avatars.DeleteAvatar(delete)) == ("UNAVAILABLE", "BLOBS_UNREACHABLE")
    (tmp_path / "blobs").unlink()
    assert trained(await caller.done(operation)).state == avatar_pb2.Avatar.STATE_READY
    assert keys(store) == {"recordings/ada", "bundles/ada"}
