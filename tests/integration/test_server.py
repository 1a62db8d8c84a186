"""The server as a whole: status, hosts, health, reflection, ports, stopping, what it logs."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from viseme import AsyncClient, Client, VisemeError

from server.app import Application
from server.config import load_settings
from server.errors import PortInUse
from server.logging import configure_logging
from server.serving import serve
from tests.doubles.ask import ask, check_sentence, refusal
from tests.doubles.llm import LlmPlan
from tests.doubles.recordings import recording
from tests.integration.conftest import StartWorld, World


async def test_status(world: World) -> None:
    async with AsyncClient(world.address) as client:
        status = await client.admin.status()
    assert re.fullmatch(r"\d+\.\d+\.\d+", status.version)
    assert (status.active_requests, status.home) == (0, str(world.home))
    assert status.llm_providers == ("double/m",)
    assert status.memory_bytes > 10_000_000


async def test_hosts(world: World) -> None:
    async with AsyncClient(world.address) as client:
        hosts = await client.admin.hosts()
        assert [host.name for host in hosts] == [
            "hosts/kokoro",
            "hosts/llama",
            "hosts/talking_gaussian",
            "hosts/talking_gaussian_train",
            "hosts/whisper",
        ]
        assert {host.state for host in hosts} == {"STOPPED"}
        restarted = await client.admin.restart_host("whisper", grace=0.5)
        assert (restarted.state, restarted.pid, restarted.capabilities) == ("READY", 4242, ("transcribe",))
        assert restarted.start_time is not None
        assert (
            await client.admin.host_log("hosts/whisper", lines=2) == "whisper says hello\nwhisper says hello"
        )
        for asked, reason in (
            (client.admin.host_log("nobody"), "HOST_NOT_FOUND"),
            (client.admin.restart_host("hosts/nobody"), "HOST_NOT_FOUND"),
            (client.admin.restart_host("avatars/demo"), "FIELD_INVALID"),
            (client.admin.restart_host(""), "FIELD_REQUIRED"),
            (client.admin.restart_host("whisper", grace=-1), "FIELD_INVALID"),
            (client.admin.host_log("whisper", lines=-1), "FIELD_INVALID"),
        ):
            with pytest.raises(VisemeError) as caught:
                await asked
            check_sentence(caught.value)
            assert caught.value.reason == reason


def test_synchronous_client(world_in_thread: World) -> None:
    with Client(world_in_thread.address) as client:
        assert client.admin.status().home == str(world_in_thread.home)
        assert len(client.admin.hosts()) == 5
        assert client.admin.restart_host("kokoro").state == "READY"
        assert client.admin.host_log("kokoro") == "\n".join(["kokoro says hello"] * 3)


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    async with AsyncClient(address) as client:
        with pytest.raises(VisemeError) as caught:
            await client.admin.status()
    assert (caught.value.reason, caught.value.fix) == ("SERVER_UNREACHABLE", "Start one: viseme serve")
    assert address in caught.value.message


async def test_health_and_reflection(world: World) -> None:
    async with grpc.aio.insecure_channel(world.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        for service in ("", "viseme.v1.DialogueService", "viseme.v1.AdminService"):
            answer = await check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
        async for response in stub.ServerReflectionInfo(iter(requests)):
            names = {service.name for service in response.list_services_response.service}
        assert {
            "viseme.v1.AvatarService",
            "viseme.v1.RenderService",
            "viseme.v1.DialogueService",
            "viseme.v1.AdminService",
            "grpc.health.v1.Health",
        } <= names


async def test_port_in_use(world: World, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "second", listen=world.address)
    second = Application(settings, hosts=world.hosts)
    with pytest.raises(PortInUse) as caught:
        await second.start()
    assert caught.value.message == f"Port {world.address.rpartition(':')[2]} is in use by another program."
    assert "--listen" in str(caught.value.fix)
    await second.stop(0)
    assert (await ask(world.address, text="Hello"))[0].video


async def test_second_server_leaves_the_first_ones_files(world: World, tmp_path: Path) -> None:
    scratch = world.home / "store" / "tmp"
    (own,) = scratch.iterdir()
    (scratch / "server-999999999").mkdir()
    (scratch / "server-999999999" / "left.mp4").write_bytes(b"x")
    (scratch / "server-1").mkdir()
    second = Application(load_settings(home=world.home, listen="127.0.0.1:0"), hosts=world.hosts)
    await second.start()
    assert (scratch / "server-1").is_dir() and not (scratch / "server-999999999").exists()
    await second.stop(0)
    assert own.name.startswith("server-")


async def test_stopping_lets_a_turn_finish(world: World) -> None:
    last = asyncio.Event()
    world.llm.plan = LlmPlan(gates={10: last})
    started = asyncio.Event()
    async with AsyncClient(world.address) as client:

        def note(event: object) -> None:
            started.set()

        asking = asyncio.ensure_future(client.reply(text="Hello", on_event=note))
        await asyncio.wait_for(started.wait(), 10)
        stopping = asyncio.ensure_future(world.application.stop(20))
        await asyncio.sleep(0)
        error = await refusal(world.address, text="Hello")
        assert error.reason in {"SERVER_UNREACHABLE", "SERVER_STOPPING"} and error.retryable
        assert not stopping.done() and not world.hosts.closed
        last.set()
        assert (await asking).text.endswith("walk.")
        await asyncio.wait_for(stopping, 5)
    assert world.hosts.closed
    assert world.temporary_files() == []


async def test_stopping_does_not_wait_for_ever(world: World) -> None:
    plan = world.hosts.plan("kokoro", hang=True)
    async with AsyncClient(world.address) as client:
        asking = asyncio.ensure_future(client.reply(text="Hello"))
        await asyncio.wait_for(plan.reached.wait(), 10)
        await asyncio.wait_for(world.application.stop(0.2), 5)
        with pytest.raises((VisemeError, asyncio.CancelledError)):
            await asking
    assert plan.running == 0 and world.hosts.closed
    assert world.temporary_files() == []


async def test_serve_ends_with_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "manifests").mkdir()
    settings = load_settings(home=tmp_path, listen="127.0.0.1:0", manifests=tmp_path / "manifests")
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(settings, ready=address.set_result, warm=True))
    async with AsyncClient(await asyncio.wait_for(address, 20)) as client:
        assert await client.admin.hosts() == []
        error = await refusal(client.address, text="Hello")
        assert error.reason == "AVATAR_NOT_FOUND" or error.status
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(serving, 10)


@pytest.fixture
def server_log(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What the server has logged."""
    configure_logging(level=logging.INFO, json=True)
    yield lambda: capfd.readouterr().err
    configure_logging(level=logging.CRITICAL)


async def test_log_shows_neither_words_nor_keys(
    start_world: StartWorld, monkeypatch: pytest.MonkeyPatch, server_log: Callable[[], str]
) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-do-not-show-me")
    first = await start_world()
    model = {"name": "d", "model": "m", "base_url": first.llm.base_url, "api_key_env": "SECRET_KEY"}
    world = await start_world(llm={"providers": [model]})
    world.hosts["whisper"].heard = "My darkest secret is chocolate."
    await ask(world.address, recording("ogg"))
    world.llm.plan = LlmPlan(status=500)
    await refusal(world.address, recording("ogg"))
    log = server_log()
    assert '"event": "call"' in log and '"reason": "LLM_UNAVAILABLE"' in log and "llm_failed" in log
    for hidden in ("chocolate", "do-not-show", "walk", "secret of 500"):
        assert hidden not in log


async def test_log_has_the_traceback_that_callers_do_not(
    world: World, monkeypatch: pytest.MonkeyPatch, server_log: Callable[[], str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("server.dialogue.turn.choose_voice", broken)
    error = await refusal(world.address, text="Hello")
    log = server_log()
    assert error.metadata["number"] in log
    assert "ZeroDivisionError: a mistake of ours" in log and "Traceback" in log
