"""`viseme jobs` against a running server."""

from __future__ import annotations

import json

import pytest
from viseme import AsyncClient

from server.cli.failures import ExitCode
from server.errors import InternalError
from tests.integration.conftest import World
from tests.integration.test_making_cli import viseme

HOST = "talking_gaussian_train"


async def made(world: World, name: str) -> str:
    """The name of an operation that has ended."""
    async with AsyncClient(world.address) as client:
        operation = await client.avatars.create(name, b"a video", consent=True)
        return (await client.operations.wait(operation.name)).name


async def test_listing(world: World) -> None:
    done = await viseme(world, "jobs", "list")
    assert (done.code, done.out) == (0, "There is no long work.\n")
    good = await made(world, "ada")
    world.hosts.plan(HOST, fail=InternalError("The dog ate it."))
    bad = await made(world, "ben")
    plan = world.hosts.plan(HOST, hang=True)
    async with AsyncClient(world.address) as client:
        active = await client.avatars.create("cleo", b"a video", consent=True)
    await plan.reached.wait()
    rows = [line.split() for line in (await viseme(world, "jobs", "list")).out.splitlines()]
    assert rows[0][:6] == ["ID", "WORK", "AVATAR", "STATE", "DONE", "LEFT"]
    assert [row[:6] for row in rows[1:]] == [
        [good[-6:], "prepare", "ada", "done", "100", "%"],
        [bad[-6:], "prepare", "ben", "failed", "0", "%"],
        [active.name[-6:], "prepare", "cleo", "running", "0", "%"],
    ]
    found = json.loads((await viseme(world, "jobs", "list", "--active", "--json")).out)
    assert [operation["name"] for operation in found["operations"]] == [active.name]
    done = await viseme(world, "jobs", "cancel", active.name[-6:])
    assert (done.code, done.out) == (0, f"Cancelled: {active.name}\n")
    assert (await viseme(world, "jobs", "list")).out.splitlines()[-1].split()[3] == "cancelled"


async def test_watching_trying_again_and_what_happened(world: World) -> None:
    world.hosts.plan(HOST, fail=InternalError("The dog ate it."))
    name = await made(world, "ada")
    done = await viseme(world, "jobs", "watch", name[-6:])
    assert (done.code, done.out) == (ExitCode.FAILED, "") and "The dog ate it." in done.err
    world.hosts.plan(HOST)
    done = await viseme(world, "jobs", "retry", name[-6:])
    again = done.out.strip()
    assert (done.code, again.startswith("operations/"), again != name) == (0, True, True)
    done = await viseme(world, "jobs", "watch", again)
    assert (done.code, done.out) == (0, f"Done: {again} (avatars/ada)\n")
    done = await viseme(world, "jobs", "watch", again, "--json")
    assert json.loads(done.out.splitlines()[-1])["avatar"]["state"] == "PREPARED"
    done = await viseme(world, "jobs", "retry", again)
    assert done.code == ExitCode.NOT_READY and "nothing to try again" in done.err
    lines = (await viseme(world, "jobs", "logs", name[-6:])).out.splitlines()
    assert lines[0].endswith("  Begun.") and lines[-1].endswith("  Failed: The dog ate it.")
    log = json.loads((await viseme(world, "jobs", "logs", again, "--json", "-n", "1")).out)
    assert [line["text"] for line in log["lines"]] == ["Done."]
    done = await viseme(world, "jobs", "cancel", again, "--json")
    assert (done.code, json.loads(done.out)["error"]) == (0, None)


@pytest.mark.parametrize("command", ["watch", "cancel", "retry", "logs"])
async def test_names_that_name_nothing(world: World, command: str) -> None:
    await made(world, "ada")
    for name in ("nothing", "operations/00"):
        done = await viseme(world, "jobs", command, name)
        assert (done.code, done.out) == (ExitCode.NOT_FOUND, "")


async def test_names_that_name_two(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter(("aaf0f0", "bbf0f0"))
    monkeypatch.setattr("server.operations.sql_store.secrets.token_hex", lambda _: next(ends))
    await made(world, "ada")
    second = await made(world, "ben")
    done = await viseme(world, "jobs", "logs", "f0f0")
    assert done.code == ExitCode.USAGE
    assert "2 operations end with 'f0f0'." in done.err and f"Use a whole name: {second}" in done.err
    assert (await viseme(world, "jobs", "logs", "bbf0f0")).code == 0
