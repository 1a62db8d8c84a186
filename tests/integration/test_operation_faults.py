"""Long work when its database goes away, and when servers and hosts are killed in the middle of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from viseme import AsyncClient, VisemeError

from benchmarks.faults import faults
from server.errors import HostLost
from tests.doubles.ask import ask, check_sentence
from tests.integration.conftest import StartWorld, World

HOST = "talking_gaussian_train"


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(world.address) as client:
        yield client


@contextmanager
def database_away(home: Path) -> Iterator[None]:
    """Moves the database of operations somewhere else, and back."""
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    for file in list((home / "store").glob("operations.db*")):
        file.rename(elsewhere / file.name)
    try:
        yield
    finally:
        for file in list(elsewhere.iterdir()):
            file.rename(home / "store" / file.name)
        elsewhere.rmdir()


async def until(found: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not found():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.02)


async def test_while_its_database_is_away_nothing_new_is_accepted(world: World, client: AsyncClient) -> None:
    plan = world.hosts.plan(HOST, hang=True, after=1)
    operation = await client.avatars.create("ada", b"a video", consent=True)
    await plan.reached.wait()
    with database_away(world.home):
        for call in (
            client.avatars.create("ben", b"a video", consent=True, request_id="ben"),
            client.operations.get(operation.name),
            client.operations.cancel(operation.name),
            client.operations.list(),
        ):
            with pytest.raises(VisemeError) as caught:
                await call
            assert (caught.value.reason, caught.value.status) == ("STORE_UNAVAILABLE", "UNAVAILABLE")
            assert caught.value.retryable
            check_sentence(caught.value)
        # What needs no database goes on.
        assert (await ask(world.address, text="Hello"))[0].video
        assert plan.running == 1
    # What was under way has not been interrupted, and what was refused is accepted now.
    second = await client.avatars.create("ben", b"a video", consent=True, request_id="ben")
    found = await client.operations.get(operation.name)
    assert (found.done, found.attempt) == (False, 1)
    world.hosts.plan(HOST)
    await client.operations.cancel(operation.name)
    await client.operations.wait(operation.name)
    assert (await client.operations.wait(second.name)).error is None


async def test_work_whose_lease_cannot_be_kept_is_stopped_and_goes_on_later(start_world: StartWorld) -> None:
    world: World = await start_world(operations={"lease_seconds": 2})
    async with AsyncClient(world.address) as client:
        plan = world.hosts.plan(HOST, hang=True, after=1)
        operation = await client.avatars.create("ada", b"a video", consent=True)
        await plan.reached.wait()
        with database_away(world.home):
            # Before somebody else could take it.
            async with asyncio.timeout(5):
                await plan.cancelled.wait()
            world.hosts.plan(HOST)
        ended = await client.operations.wait(operation.name)
        assert (ended.error, ended.attempt) == (None, 2)


async def test_the_next_server_on_a_postgresql_database_goes_on(
    start_world: StartWorld, postgresql_server: Any
) -> None:
    database = {"database": postgresql_server.empty()}
    first: World = await start_world(operations=database)
    async with AsyncClient(first.address) as client:
        prepared = await client.avatars.create("ada", b"a video", consent=True)
        await client.operations.wait(prepared.name)
        plan = first.hosts.plan(HOST, hang=True, after=3)
        operation = await client.avatars.train("ada")
        await plan.reached.wait()
    await first.application.stop(0)
    second: World = await start_world(operations=database)
    async with AsyncClient(second.address) as client:
        ended = await client.operations.wait(operation.name)
        assert (ended.error, ended.attempt, ended.task) == (None, 2, "train")
        assert second.hosts[HOST].trained_steps == [3, 4]
        log = [line.text for line in await client.operations.log(operation.name)]
    assert "Interrupted: the server stops." in log and log[-1] == "Done."
    assert not (second.home / "store" / "operations.db").exists()


async def test_a_host_that_dies_while_the_database_is_away(world: World, client: AsyncClient) -> None:
    plan = world.hosts.plan(HOST, hang=True, after=3)
    operation = await client.avatars.create("ada", b"a video", consent=True)
    await plan.reached.wait()
    world.hosts.plan(HOST)
    with database_away(world.home):
        world.hosts[HOST].die()
        await until(lambda: world.hosts[HOST].channel is None)
    ended = await client.operations.wait(operation.name)
    assert (ended.error, ended.attempt) == (None, 2)
    log = [line.text for line in await client.operations.log(operation.name)]
    assert log[0] == "Begun." and log[-1] == "Done." and "Begun for the 2. time." in log
    assert any(line.startswith("Interrupted: ") for line in log)


async def test_a_host_that_never_gets_further_is_given_up(
    world: World, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.operations.runner._RETRY_SECONDS", 0.0)
    plan = world.hosts.plan(HOST, fail=HostLost("It died."), after=1)
    operation = await client.avatars.create("ada", b"a video", consent=True)
    ended = await client.operations.wait(operation.name)
    assert ended.error is not None
    assert (ended.error.reason, ended.attempt, plan.calls) == ("HOST_LOST", 5, 5)
    # What failed can be tried again, once for each request, and what came to a good end not.
    world.hosts.plan(HOST)
    again = await client.operations.retry(operation.name, request_id="again")
    assert again.name != operation.name
    assert (await client.operations.retry(operation.name, request_id="again")).name == again.name
    assert (await client.operations.wait(again.name)).error is None
    with pytest.raises(VisemeError) as caught:
        await client.operations.retry(again.name)
    assert caught.value.reason == "OPERATION_SUCCEEDED"


async def test_a_request_id_of_another_request(world: World, client: AsyncClient) -> None:
    operation = await client.avatars.create("ada", b"a video", consent=True, request_id="one")
    await client.operations.wait(operation.name)
    for call in (
        client.avatars.create("ben", b"a video", consent=True, request_id="one"),
        client.avatars.create("ada", b"a longer video", consent=True, request_id="one"),
    ):
        with pytest.raises(VisemeError) as caught:
            await call
        assert (caught.value.reason, caught.value.status) == ("REQUEST_ID_REUSED", "INVALID_ARGUMENT")


async def test_pages_and_filters(world: World, client: AsyncClient) -> None:
    done = [await client.avatars.create(f"a{n}", b"a video", consent=True) for n in range(3)]
    for operation in done:
        await client.operations.wait(operation.name)
    plan = world.hosts.plan(HOST, hang=True)
    active = await client.avatars.create("b", b"a video", consent=True)
    await plan.reached.wait()
    assert [o.name for o in await client.operations.list(done=False)] == [active.name]
    assert [o.name for o in await client.operations.list(done=True)] == [o.name for o in done]


async def test_operations_that_are_over_are_forgotten(start_world: StartWorld) -> None:
    world: World = await start_world()
    async with AsyncClient(world.address) as client:
        names = []
        for seed in range(3):
            if not seed:
                operation = await client.avatars.create("ada", b"a video", consent=True)
            else:
                operation = await client.avatars.train("ada", seed=seed)
            names.append((await client.operations.wait(operation.name)).name)
    await world.application.stop(0)
    again: World = await start_world(operations={"keep_count": 1})
    async with AsyncClient(again.address) as client, asyncio.timeout(10):
        while [o.name for o in await client.operations.list()] != names[-1:]:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0.02)
        assert (await client.avatars.get("ada")).operation == names[-1]


@pytest.mark.slow
async def test_servers_and_hosts_are_killed_at_random_moments(tmp_path: Path) -> None:
    outcome = await faults(tmp_path, kills=10, seed=1)
    assert outcome.kills.total() == 10 and outcome.accepted and outcome.steps
    assert (outcome.lost, outcome.doubles, outcome.orphans, outcome.leases) == ([], 0, [], 0)
    assert outcome.again <= 10
