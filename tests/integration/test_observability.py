"""What is seen of a server from outside: metrics, traces, and one request id in all logs."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from viseme import AsyncClient, VisemeError
from viseme.v1 import avatar_pb2, avatar_pb2_grpc

from server.errors import ConfigInvalid, HostLost, PortInUse
from server.logging import configure_logging
from server.tracing import Tracing
from tests.doubles.ask import ask, refusal
from tests.integration.conftest import StartWorld, World

Samples = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture
def server_log(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What the server has logged."""
    configure_logging(level=logging.INFO, json=True)

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]

    yield lines
    configure_logging(level=logging.CRITICAL)


async def scrape(world: World) -> Samples:
    assert world.application.metrics_server is not None
    url = f"http://127.0.0.1:{world.application.metrics_server.port}/metrics"

    def read() -> str:
        with urllib.request.urlopen(url, timeout=10) as response:
            return str(response.read().decode())

    samples: Samples = {}
    for family in text_string_to_metric_families(await asyncio.to_thread(read)):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[
                tuple(value for _, value in sorted(sample.labels.items()))
            ] = sample.value
    return samples


async def test_metrics(start_world: StartWorld) -> None:
    world = await start_world(observability={"metrics_listen": "127.0.0.1:0"})
    assert (await ask(world.address, text="Hello"))[0].video
    world.hosts.plan("kokoro", fail=HostLost(host="kokoro"))
    assert (await refusal(world.address, text="Hello")).reason == "HOST_LOST"
    async with AsyncClient(world.address) as client:
        operation = await client.avatars.create("ada", b"a video", consent=True)
        assert (await client.operations.wait(operation.name)).avatar is not None
    found = await scrape(world)
    reply = "/viseme.v1.DialogueService/Reply"
    assert found["viseme_calls_total"]["OK", reply] == 1
    assert found["viseme_calls_total"]["UNAVAILABLE", reply] == 1
    assert found["viseme_call_seconds_count"][(reply,)] == 2
    assert found["viseme_errors_total"][("HOST_LOST",)] == 1
    assert found["viseme_videos_total"]["turn", "done"] == 1
    assert found["viseme_videos_total"]["turn", "host_lost"] == 1
    assert found["viseme_stage_seconds_count"][("render",)] == 1
    assert found["viseme_stage_first_output_seconds_count"][("speak",)] == 1
    assert found["viseme_first_token_seconds_count"][("double/m",)] == 2
    assert found["viseme_operation_wait_seconds_count"][("create",)] == 1
    assert found["viseme_operations_total"]["create", "done"] == 1
    assert found["viseme_operations_queue"] == {("pending",): 0, ("running",): 0}
    assert found["viseme_active_requests"][()] == 0
    assert ("whisper",) in found["viseme_host_restarts_total"]
    assert found["process_resident_memory_bytes"][()] > 10_000_000


async def test_the_metrics_port_is_taken(start_world: StartWorld) -> None:
    first = await start_world(observability={"metrics_listen": "127.0.0.1:0"})
    server = first.application.metrics_server
    with pytest.raises(PortInUse, match="metrics"):
        await start_world(observability={"metrics_listen": f"127.0.0.1:{server.port}"})
    silent = await start_world()
    assert silent.application.metrics_server is None


async def test_one_id_from_the_caller_to_the_hosts(
    start_world: StartWorld, server_log: Callable[[], list[dict[str, Any]]]
) -> None:
    world = await start_world()
    async with grpc.aio.insecure_channel(world.address) as channel:
        stub: Any = avatar_pb2_grpc.AvatarServiceStub(channel)
        request = avatar_pb2.GetAvatarRequest(name="avatars/nobody")
        for given, kept in (
            ("my-request-0001", True),
            ("short", False),
            ("a line\\nbreak", False),
            ("x" * 65, False),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetAvatar(request, metadata=(("x-request-id", given),))
            told = [line["request_id"] for line in server_log() if line["event"] == "call"]
            assert len(told) == 1 and (told[0] == given) is kept
            assert kept or re.fullmatch("[0-9a-f]{16}", told[0])
        call = stub.GetAvatar(
            avatar_pb2.GetAvatarRequest(name="avatars/demo"), metadata=(("x-request-id", "my-request-0002"),)
        )
        await call
        assert ("x-request-id", "my-request-0002") in list(await call.trailing_metadata())
        server_log()
    world.hosts.plan("kokoro", fail=HostLost(host="kokoro"))
    error = await refusal(world.address, text="Hello")
    told = {line["request_id"] for line in server_log() if line["event"] == "call"}
    assert told == {error.request_id}
    world.hosts.plan("kokoro")
    assert (await ask(world.address, text="Hello"))[0].video
    (told_of_turn,) = {line["request_id"] for line in server_log() if "request_id" in line}
    assert (
        world.hosts["kokoro"].request_ids[-1]
        == world.hosts["talking_gaussian"].request_ids[-1]
        == told_of_turn
    )


async def test_an_operation_has_an_id_of_its_own(
    start_world: StartWorld, server_log: Callable[[], list[dict[str, Any]]]
) -> None:
    world = await start_world()
    async with AsyncClient(world.address) as client:
        operation = await client.avatars.create("ada", b"a video", consent=True)
        await client.operations.wait(operation.name)
    assert world.hosts["talking_gaussian_train"].request_ids == [operation.name.removeprefix("operations/")]


async def test_traces(start_world: StartWorld) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    world = await start_world(tracing=Tracing(provider))
    assert (await ask(world.address, text="Hello"))[0].video
    world.hosts.plan("kokoro", fail=HostLost(host="kokoro"))
    with pytest.raises(VisemeError):
        await ask(world.address, text="Hello")
    spans = exporter.get_finished_spans()
    calls = [span for span in spans if "Reply" in span.name]
    stages = [span for span in spans if span.name.startswith("stage ")]
    assert len(calls) == 2
    first = [span.name for span in stages if span.context.trace_id == calls[0].context.trace_id]
    assert set(first) == {"stage reply", "stage speak", "stage render", "stage finish"}
    assert all(span.parent is not None and span.end_time >= span.start_time for span in stages)


def test_traces_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.grpc", None)
    with pytest.raises(ConfigInvalid, match="open_telemetry needs") as caught:
        Tracing(TracerProvider())
    assert "viseme[otel]" in str(caught.value.fix)
