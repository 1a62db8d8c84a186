"""Leases in a whole server: trainings make room, go on, survive a lost GPU; what operators see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from google.longrunning import operations_pb2
from viseme import AsyncClient

from gpu_scheduler import GIB, Class
from server.errors import DeviceUnsuitable
from server.placement import Held, Need, Placement
from tests.doubles.gpus import FakeGpus
from tests.integration.commands import viseme
from tests.integration.conftest import StartWorld, World
from tests.integration.test_making_avatars import HOST, Caller, progress, trained

READ_SECONDS = 0.02


@pytest.fixture
def gpus() -> FakeGpus:
    return FakeGpus(6)


@pytest.fixture
async def world(start_world: StartWorld, gpus: FakeGpus) -> World:
    """A server with one GPU of 6 GiB, of which a training needs 4000 MiB."""
    return await start_world(placement=Placement(gpus, read_seconds=READ_SECONDS))


@pytest.fixture
async def caller(world: World) -> AsyncIterator[Caller]:
    caller = Caller(world.address)
    await caller.done(await caller.create())
    yield caller
    await caller.close()


async def dialogue(world: World, gib: int = 3, pin: str = "") -> Held:
    need = Need("hosts/speaker", Class.DIALOGUE, gib * GIB, GIB, pin=pin)
    return await world.application.placement.acquire(need)


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.005)


async def message(caller: Caller, operation: Any, part: str) -> str:
    """What an operation says, once it says something with these words in it."""
    async with asyncio.timeout(10):
        while True:
            listed = await caller.operations.GetOperation(
                operations_pb2.GetOperationRequest(name=operation.name)
            )
            if part in (said := progress(listed).message):
                return said
            await asyncio.sleep(0.02)


async def test_a_training_makes_room_at_a_checkpoint_and_goes_on(world: World, caller: Caller) -> None:
    plan = world.hosts.plan(HOST, hang=True, after=3)
    operation = await caller.train(device="0")
    await plan.reached.wait()
    held = await asyncio.wait_for(dialogue(world), 5)
    assert held.device.id == "GPU-0"
    assert plan.cancelled.is_set()
    said = await message(caller, operation, "waiting")
    assert said == "waiting: needs 3.9 GiB, GPU 0 has 3.0 GiB free, hosts/speaker (dialogue) has the rest"
    world.hosts.plan(HOST)
    world.application.placement.release(held)
    ended = await caller.done(operation)
    assert trained(ended).name == "avatars/ada"
    # Nothing was done twice, and nobody takes the interruption for a failed attempt.
    assert world.hosts[HOST].trained_steps == [1, 2, 3, 4]
    assert progress(ended).attempt == 1
    # Its host saw that GPU only, and gave its memory back with its process.
    assert world.hosts.placed == [(HOST, "GPU-0"), (HOST, None)] * 2
    await until(lambda: not world.application.placement.scheduler.ledger.leases)


async def test_a_gpu_that_is_lost_in_the_middle_of_a_training(
    world: World, caller: Caller, gpus: FakeGpus
) -> None:
    plan = world.hosts.plan(HOST, hang=True, after=2)
    operation = await caller.train()
    await plan.reached.wait()
    world.hosts.plan(HOST)
    gpus.fails("GPU-0", "is lost: it has fallen off the bus")
    said = await message(caller, operation, "lost")
    assert said == "waiting: needs 3.9 GiB, GPU 0 is lost: it has fallen off the bus"
    gpus.fails("GPU-0", "")
    trained(await caller.done(operation))
    assert world.hosts[HOST].trained_steps == [1, 2, 3, 4]


async def test_a_training_that_waits_can_be_cancelled(world: World, caller: Caller) -> None:
    held = await dialogue(world)
    operation = await caller.train()
    await message(caller, operation, "hosts/speaker (dialogue)")
    await caller.cancel(operation)
    ended = await caller.done(operation)
    assert ended.error.message == "The operation was cancelled."
    assert world.application.placement.scheduler.waiting == []
    world.application.placement.release(held)


async def test_devices_that_cannot_be(world: World, caller: Caller) -> None:
    ended = await caller.done(await caller.train(device="7"))
    assert ended.error.message == (
        "There is no device '7'; there is GPU 0 (Fake H100), the processor "
        f"({world.application.placement.scheduler.ledger.places['cpu'].device.name})."
    )
    with pytest.raises(DeviceUnsuitable, match=r"needs 11\.0 GiB, but GPU 0"):
        await dialogue(world, 11)


async def test_the_processor_is_used_when_it_is_asked_for(world: World, caller: Caller) -> None:
    held = await dialogue(world)
    trained(await caller.done(await caller.train(device="cpu")))
    assert world.hosts[HOST].plan.requests[-1].device == "cpu"
    assert world.hosts.placed == []
    world.application.placement.release(held)


async def test_what_operators_see_and_do(world: World, caller: Caller, gpus: FakeGpus, place: Path) -> None:
    gpus.fills("GPU-0", 1)
    plan = world.hosts.plan(HOST, hang=True, after=2)
    operation = await caller.train()
    await plan.reached.wait()
    async with AsyncClient(world.address) as client:
        (gpu, cpu), problem = await client.admin.gpus()
        assert (gpu.name, gpu.reserved_bytes, gpu.foreign_bytes) == ("gpus/GPU-0", 4000 << 20, GIB)
        assert (cpu.name, cpu.index, problem) == ("gpus/cpu", -1, "")
        (lease,) = await client.admin.leases()
        assert (lease.holder, lease.work, lease.state) == (operation.name, "TRAINING", "ACTIVE")
        assert lease.preemptible and lease.gpu == "gpus/GPU-0" and lease.age >= 0
    out = (await viseme(world, place, "gpus")).out
    assert "Fake H100" in out and "RESERVED" in out and "1.0 GiB" in out
    assert operation.name in (await viseme(world, place, "leases")).out
    overview = (await viseme(world, place, "top", "--times", "1")).out
    assert all(words in overview for words in ("Fake H100", "training", "ada", "talking_gaussian_train"))
    watched = (await viseme(world, place, "gpus", "--watch", "--every", "0.1", "--times", "2", "--json")).out
    assert [len(json.loads(line)["gpus"]) for line in watched.split("\n") if line.strip()] == [2, 2]

    drained = await viseme(world, place, "drain", "0")
    assert drained.out == "GPU-0 takes nothing new; its holders were asked to leave: viseme leases.\n"
    world.hosts.plan(HOST)
    assert await message(caller, operation, "drained") == "waiting: needs 3.9 GiB, GPU 0 is being drained"
    assert "draining" in (await viseme(world, place, "gpus")).out
    assert (await viseme(world, place, "drain", "9")).code == 6
    assert "in use again" in (await viseme(world, place, "drain", "--undo")).out
    trained(await caller.done(operation))
    nobody = (await viseme(world, place, "leases")).out
    assert nobody == "Nobody holds a device, and nobody waits for one.\n"


async def test_a_machine_without_a_gpu_reads_nothing_until_it_trains(start_world: StartWorld) -> None:
    gpus = FakeGpus()
    world = await start_world(placement=Placement(gpus, read_seconds=READ_SECONDS))
    caller = Caller(world.address)
    await caller.done(await caller.create())
    assert gpus.readings == 0
    trained(await caller.done(await caller.train()))
    assert world.hosts[HOST].plan.requests[-1].device == ""
    async with AsyncClient(world.address) as client:
        (cpu,), problem = await client.admin.gpus()
        assert (cpu.name, problem) == ("gpus/cpu", "There is no NVIDIA driver.")
    await caller.close()
