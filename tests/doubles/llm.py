"""An OpenAI-compatible language model over real HTTP, which can fail in every way such services fail."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

REPLY = "I am fine, thank you. The weather is lovely today, is it not? Let us go for a walk."


@dataclass
class LlmPlan:
    """What the model does.

    Attributes:
        pieces: What it writes, piece by piece.
        echo: Whether it writes the question back, as a sentence, instead.
        status: HTTP status; anything but 200 is an error.
        hang: Before which piece it stops and never goes on.
        keep_alive: Whether it sends comments while it hangs.
        trickle: What it sends over and over while it hangs: deltas, such as an empty one or a role.
        retry_after: The `Retry-After` of an error.
        usage: Number of tokens sent and written that it tells when it is asked for them.
        usage_unasked: Whether it tells them in any case, as GLM does.
        silent_end: Whether it keeps the line open after its last word.
        raw: Bytes that it sends instead of the stream's first chunk, such as half a JSON document.
        first_seconds: How long it thinks before its first piece.
        cut: Before which piece it ends the stream without a word; `drop`: it drops the connection instead.
        garbage: Before which piece it sends something that is not JSON.
        finish_reason: What it says at the end.
        gates: Events to wait for before a piece, by index.
        requests: Bodies of the requests.
        keys: Authorization headers.
        reached: Set when it fails, hangs or waits at a gate.
        gone: Set when a client went away while it wrote.
    """

    pieces: list[str] = field(default_factory=lambda: [f"{word} " for word in REPLY.split()])
    echo: bool = False
    status: int = 200
    hang: int | None = None
    keep_alive: bool = False
    trickle: dict[str, Any] | None = None
    retry_after: str = ""
    usage: tuple[int, int] | None = None
    usage_unasked: bool = False
    silent_end: bool = False
    raw: bytes = b""
    first_seconds: float = 0.0
    cut: int | None = None
    drop: int | None = None
    garbage: int | None = None
    finish_reason: str | None = "stop"
    gates: dict[int, asyncio.Event] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class LlmDouble:
    """The service: `async with LlmDouble() as llm`, then `llm.base_url` and `llm.plan`."""

    def __init__(self) -> None:
        self.plan = LlmPlan()
        self.base_url = ""
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> LlmDouble:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for client in list(self._clients):
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()

    async def settled(self, seconds: float = 5.0) -> int:
        """Waits until no client is connected, and gives how many still are after this time."""
        if self._clients:
            await asyncio.wait(self._clients, timeout=seconds)
        return len(self._clients)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.plan.gone.set()
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plan = self.plan
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:] if ": " in line)
        plan.requests.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
        plan.keys.append(headers.get("authorization", ""))
        if plan.status != 200:
            plan.reached.set()
            body = json.dumps({"error": {"message": f"secret of {plan.status}", "type": "double"}}).encode()
            writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n" % plan.status)
            if plan.retry_after:
                writer.write(f"Retry-After: {plan.retry_after}\r\n".encode())
            writer.write(b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        await writer.drain()
        watching = asyncio.ensure_future(self._watch(reader, plan))
        try:
            await self._write(writer, plan)
        finally:
            watching.cancel()

    async def _watch(self, reader: asyncio.StreamReader, plan: LlmPlan) -> None:
        """Notes when the client goes away."""
        try:
            gone = not await reader.read(1)
        except ConnectionError:
            gone = True
        if gone:
            plan.gone.set()

    async def _write(self, writer: asyncio.StreamWriter, plan: LlmPlan) -> None:
        pieces = plan.pieces
        if plan.echo:
            question = plan.requests[-1]["messages"][-1]["content"]
            pieces = [f"{word} " for word in f"You said {question}. That is all I know.".split()]
        if plan.raw:
            plan.reached.set()
            writer.write(plan.raw)
            await writer.drain()
            return
        if plan.first_seconds:
            await asyncio.sleep(plan.first_seconds)
        for index, piece in enumerate(pieces):
            if index in plan.gates:
                plan.reached.set()
                await plan.gates[index].wait()
            if index == plan.hang:
                await self._hang(writer, plan)
                return
            if index in {plan.cut, plan.drop}:
                plan.reached.set()
                if index == plan.drop:
                    writer.transport.abort()
                return
            if index == plan.garbage:
                plan.reached.set()
                writer.write(b"data: {this is not JSON\n\n")
                await writer.drain()
                return
            await self._send(writer, {"content": piece}, None)
        if plan.finish_reason is not None:
            await self._end(writer, plan)

    async def _hang(self, writer: asyncio.StreamWriter, plan: LlmPlan) -> None:
        """Sends nothing that is an answer until the client goes away."""
        plan.reached.set()
        while not plan.gone.is_set():
            if plan.keep_alive:
                writer.write(b": still here\n\n")
                await writer.drain()
            if plan.trickle is not None:
                await self._send(writer, plan.trickle, None)
            await asyncio.wait([asyncio.ensure_future(plan.gone.wait())], timeout=0.05)

    async def _end(self, writer: asyncio.StreamWriter, plan: LlmPlan) -> None:
        await self._send(writer, {}, plan.finish_reason)
        if plan.silent_end:
            plan.reached.set()
            await plan.gone.wait()
            return
        if plan.usage is not None and (plan.usage_unasked or plan.requests[-1].get("stream_options")):
            await self._send(writer, None, None, plan.usage)
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        delta: dict[str, Any] | None,
        finish: str | None,
        usage: tuple[int, int] | None = None,
    ) -> None:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        chunk: dict[str, Any] = {
            "id": "1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "double",
            "choices": choices,
        }
        if usage is not None:
            sent, written = usage
            chunk["usage"] = {
                "prompt_tokens": sent,
                "completion_tokens": written,
                "total_tokens": sent + written,
            }
        writer.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await writer.drain()
