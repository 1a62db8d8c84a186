"""Model hosts in the test's own process: they speak host.proto over unix sockets, and fail when told to."""

# ruff: noqa: N802 (the names are the protocol's)

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from viseme.host.v1 import host_pb2, host_pb2_grpc

from server.error_status import to_status
from server.errors import HostNotFound, VisemeError
from server.hosts.status import HostState, HostStatus
from tests.doubles.speech import RATE, Film, speak, speech_seconds
from tests.doubles.training import TrainDouble

CAPABILITIES = {
    "whisper": "transcribe",
    "kokoro": "synthesize",
    "talking_gaussian": "render",
    "llama": "chat",
    "talking_gaussian_train": "train",
}


@dataclass
class Plan:
    """What a host does with its calls, and what became of them.

    Attributes:
        fail: Raised by calls.
        hang: Whether calls never go on.
        die: Whether the host goes away in a call.
        after: Outputs that come before any of that.
        reached: Set when a call fails, hangs or dies.
        cancelled: Set when a call is cancelled from outside.
        calls: How many calls there were.
        running: How many run now.
    """

    fail: VisemeError | None = None
    hang: bool = False
    die: bool = False
    after: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0
    running: int = 0
    requests: list[Any] = field(default_factory=list)


class _Call:
    """One call under a plan."""

    def __init__(self, host: _Host, context: Any) -> None:
        self._host, self._context, self._outputs = host, context, 0

    async def output(self) -> None:
        """Is called before each output, and once at the start."""
        plan = self._host.plan
        if self._outputs >= plan.after:
            if plan.fail is not None:
                plan.reached.set()
                await self._context.abort_with_status(to_status(plan.fail))
            if plan.hang:
                plan.reached.set()
                await asyncio.Event().wait()
            if plan.die:
                plan.reached.set()
                self._host.die()
                await asyncio.Event().wait()
        self._outputs += 1


class _Host:
    """One host."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.plan = Plan()
        self.restarts = -1
        self._directory = directory
        self._server: grpc.aio.Server | None = None
        self.channel: grpc.aio.Channel | None = None
        self._dying: asyncio.Task[None] | None = None
        self.starting = asyncio.Lock()
        self.heard = "Hello there. How are you today?"
        self.openai_base_url = ""
        self.voices = ["af_heart", "bm_george", "zf_xiaobei"]
        self.findings: list[host_pb2.PrepareResponse.Finding] = []
        self.trained_steps: list[int] = []
        self.request_ids: list[str] = []
        self.device: str | None = None
        self.pid = 4242

    @asynccontextmanager
    async def call(self, context: Any) -> AsyncIterator[_Call]:
        plan = self.plan
        plan.calls += 1
        plan.running += 1
        self.request_ids += [value for key, value in context.invocation_metadata() if key == "x-request-id"]
        try:
            call = _Call(self, context)
            await call.output()
            yield call
        except asyncio.CancelledError:
            plan.cancelled.set()
            raise
        finally:
            plan.running -= 1

    async def start(self) -> grpc.aio.Channel:
        async with self.starting:
            if self._dying is not None:
                await self._dying
            if self.channel is None:
                self.restarts += 1
                server = grpc.aio.server()
                for add, servicer in (
                    (host_pb2_grpc.add_HostServiceServicer_to_server, _Describe(self)),
                    (host_pb2_grpc.add_TranscribeServiceServicer_to_server, _Transcribe(self)),
                    (host_pb2_grpc.add_SynthesizeServiceServicer_to_server, _Synthesize(self)),
                    (host_pb2_grpc.add_RenderServiceServicer_to_server, _Render(self)),
                    (host_pb2_grpc.add_TrainServiceServicer_to_server, TrainDouble(self)),
                ):
                    add(servicer, server)  # type: ignore[operator]
                address = f"unix:{self._directory}/{self.name}{self.restarts}.s"
                server.add_insecure_port(address)
                await server.start()
                self._server = server
                self.channel = grpc.aio.insecure_channel(
                    address, options=[("grpc.use_local_subchannel_pool", 1)]
                )
            return self.channel

    def die(self) -> None:
        self._dying = asyncio.ensure_future(self.stop())

    async def stop(self) -> None:
        server, channel, self._server, self.channel = self._server, self.channel, None, None
        if server is not None:
            await server.stop(0)
        if channel is not None:
            await channel.close()


class DoubleHosts:
    """All hosts; stands in for `server.hosts.pool.HostPool`."""

    def __init__(self, directory: Path) -> None:
        self._hosts = {name: _Host(name, directory) for name in sorted(CAPABILITIES)}
        self.closed = False
        self.placed: list[tuple[str, str | None]] = []

    def __getitem__(self, name: str) -> _Host:
        return self._hosts[name]

    def plan(self, name: str, **behaviour: Any) -> Plan:
        """Sets what a host does from now on."""
        self._hosts[name].plan = Plan(**behaviour)
        return self._hosts[name].plan

    async def channel(self, name: str) -> grpc.aio.Channel:
        if name not in self._hosts:
            raise HostNotFound(f"There is no host '{name}'.")
        return await self._hosts[name].start()

    async def place(self, name: str, device: str | None) -> None:
        if self._hosts[name].device != device:
            await self._hosts[name].stop()
        self._hosts[name].device = device
        self.placed.append((name, device))

    def is_elsewhere(self, name: str) -> bool:
        return False

    def pid(self, name: str) -> int | None:
        return self._hosts[name].pid if self._hosts[name].channel else None

    async def describe(self, name: str) -> host_pb2.DescribeResponse:
        stub = host_pb2_grpc.HostServiceStub(await self.channel(name))
        return await stub.Describe(host_pb2.DescribeRequest())  # type: ignore[no-any-return,misc]

    async def site(self, name: str) -> None:
        await self.channel(name)

    def snapshot(self) -> list[HostStatus]:
        return [
            HostStatus(
                name=name,
                state=HostState.READY if host.channel else HostState.STOPPED,
                capabilities=(CAPABILITIES[name],),
                pid=4242 if host.channel else None,
                memory_bytes=1000 if host.channel else 0,
                restart_count=max(0, host.restarts),
                start_time=datetime.now(UTC) if host.channel else None,
                problem="",
                fix="",
                python_version="3.11.2",
                models=("double",),
            )
            for name, host in self._hosts.items()
        ]

    async def restart(self, name: str, grace: float) -> HostStatus:
        await self._hosts[name].stop()
        await self.channel(name)
        return next(status for status in self.snapshot() if status.name == name)

    def log(self, name: str, lines: int) -> str:
        return "\n".join([f"{name} says hello"] * min(lines, 3))

    async def close(self) -> None:
        self.closed = True
        for host in self._hosts.values():
            await host.stop()


class _Describe(host_pb2_grpc.HostServiceServicer):
    def __init__(self, host: _Host) -> None:
        self._host = host

    async def Describe(self, request: Any, context: Any) -> host_pb2.DescribeResponse:
        host = self._host
        languages = {"a": "en-US", "b": "en-GB", "z": "zh-CN"}
        voices = [host_pb2.Voice(id=voice, language=languages[voice[0]]) for voice in host.voices]
        return host_pb2.DescribeResponse(
            name=host.name,
            ready=True,
            capabilities=[CAPABILITIES[host.name]],
            models=[host_pb2.Model(name="double", languages=["en"], installed=True, voices=voices)],
            openai_base_url=host.openai_base_url,
            openai_api_key="the-key",
        )


class _Transcribe(host_pb2_grpc.TranscribeServiceServicer):
    def __init__(self, host: _Host) -> None:
        self._host = host

    async def Transcribe(self, request_iterator: Any, context: Any) -> Any:
        async with self._host.call(context) as call:
            pcm = b""
            language = ""
            async for request in request_iterator:
                if request.WhichOneof("payload") == "config":
                    language = request.config.language
                pcm += request.pcm
            samples = np.frombuffer(pcm, "<i2")
            seconds = speech_seconds(samples, 16000)
            self._host.plan.requests.append(len(samples))
            await call.output()
            yield host_pb2.TranscribeResponse(
                text=self._host.heard if seconds else "",
                language=language or "en",
                final=True,
                speech_seconds=seconds,
            )


class _Synthesize(host_pb2_grpc.SynthesizeServiceServicer):
    def __init__(self, host: _Host) -> None:
        self._host = host

    async def Synthesize(self, request: Any, context: Any) -> Any:
        async with self._host.call(context) as call:
            self._host.plan.requests.append(request)
            samples, phonemes = speak(request.text)
            half = round(phonemes[len(phonemes) // 2].start_seconds * RATE)
            for start, end in ((0, half), (half, len(samples))):
                if end > start:
                    inside = [p for p in phonemes if start <= round(p.start_seconds * RATE) < end]
                    shifted = [
                        host_pb2.Phoneme(
                            symbol=p.symbol,
                            start_seconds=p.start_seconds - start / RATE,
                            end_seconds=p.end_seconds - start / RATE,
                        )
                        for p in inside
                    ]
                    await call.output()
                    yield host_pb2.SynthesizeResponse(
                        pcm=samples[start:end].astype("<i2").tobytes(), sample_rate=RATE, phonemes=shifted
                    )


class _Render(host_pb2_grpc.RenderServiceServicer):
    def __init__(self, host: _Host) -> None:
        self._host = host

    async def Render(self, request_iterator: Any, context: Any) -> Any:
        async with self._host.call(context) as call:
            film: Film | None = None
            async for request in request_iterator:
                self._host.plan.requests.append(request)
                if request.WhichOneof("payload") == "config":
                    assert (Path(request.config.bundle) / "avatar.json").is_file()
                    film = Film(request.config.sample_rate)
                    pieces = [film.begin()]
                else:
                    assert film is not None
                    piece = film.add(np.frombuffer(request.speech.pcm, "<i2"))
                    pieces = [piece] if piece else []
                for piece in pieces:
                    await call.output()
                    yield _fragment(piece)
            assert film is not None
            if last := film.finish():
                await call.output()
                yield _fragment(last)
            yield host_pb2.RenderResponse(
                summary=host_pb2.RenderResponse.Summary(
                    frame_count=film.frames, sample_count=film.sample_count
                )
            )


def _fragment(piece: Any) -> host_pb2.RenderResponse:
    return host_pb2.RenderResponse(
        fragment=host_pb2.RenderResponse.Fragment(
            data=piece.data, first_frame=piece.first_frame, frame_count=piece.frame_count
        )
    )
