"""The two directions of a streaming call: reading what is uploaded, and giving events as they happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from viseme.v1 import dialogue_pb2, media_pb2, render_pb2

from server.dialogue.events import Emit, Event
from server.errors import FieldInvalid, FieldRequired, StageTimeout
from server.media.resample import MAX_RATE, MIN_RATE

_WAITING_EVENTS = 16

Request = TypeVar("Request")
Config = TypeVar("Config", dialogue_pb2.ReplyRequest.Config, render_pb2.StreamRenderRequest.Config)


class Upload(Generic[Config]):
    """A stream of requests whose first is the config and whose others are audio.

    Args:
        requests: The stream, of messages with `config` and `audio`.
        gap_seconds: Longest time between two of them.
    """

    def __init__(
        self,
        requests: AsyncIterator[dialogue_pb2.ReplyRequest | render_pb2.StreamRenderRequest],
        gap_seconds: float,
    ) -> None:
        self._requests = aiter(requests)
        self._gap_seconds = gap_seconds

    async def config(self) -> Config:
        """The first request.

        Raises:
            FieldRequired: It is something else.
        """
        first = await self._next()
        if first is None or first.WhichOneof("payload") != "config":
            raise FieldRequired("config is required, and must be the first message.", field="config")
        return first.config  # type: ignore[return-value]  # which of the two, the caller's annotation says

    async def audio(self) -> AsyncIterator[bytes]:
        """The others.

        Raises:
            FieldInvalid: Another config is among them.
            StageTimeout: The next one does not come.
        """
        while (request := await self._next()) is not None:
            if request.WhichOneof("payload") == "config":
                raise FieldInvalid("config may be sent only once.", field="config")
            yield request.audio

    async def _next(self) -> dialogue_pb2.ReplyRequest | render_pb2.StreamRenderRequest | None:
        return await next_in_time(self._requests, self._gap_seconds)


async def next_in_time(requests: AsyncIterator[Request], seconds: float) -> Request | None:
    """The next request of an upload; None at its end.

    Raises:
        StageTimeout: It does not come within so many seconds.
    """
    try:
        async with asyncio.timeout(seconds):
            return await anext(requests, None)
    except TimeoutError:
        raise StageTimeout(
            f"Nothing arrived for {seconds:g} s, and the upload had not ended.", stage="upload"
        ) from None


def pcm_rate(config: dialogue_pb2.ReplyRequest.Config | render_pb2.StreamRenderRequest.Config) -> int:
    """Samples a second of raw audio; 0 when the audio is a container.

    Raises:
        FieldInvalid: The rate is out of range, or the encoding is unknown.
    """
    if config.encoding in {media_pb2.AUDIO_ENCODING_UNSPECIFIED, media_pb2.AUDIO_ENCODING_CONTAINER}:
        return 0
    if config.encoding != media_pb2.AUDIO_ENCODING_PCM_S16LE:
        raise FieldInvalid("config.encoding is not one this server knows.", field="config.encoding")
    if not MIN_RATE <= config.sample_rate <= MAX_RATE:
        raise FieldInvalid(
            f"config.sample_rate must be {MIN_RATE} to {MAX_RATE} for PCM audio, not {config.sample_rate}.",
            field="config.sample_rate",
        )
    return config.sample_rate


async def events_of(run: Callable[[Emit], Awaitable[None]]) -> AsyncGenerator[Event]:
    """Gives the events of something while it runs.

    Closing the generator cancels what runs and waits until it has cleaned up.

    Args:
        run: Is given where to put its events; is held back while they are not taken.

    Raises:
        Exception: What `run` raised, after its last event.
    """
    events: asyncio.Queue[Event] = asyncio.Queue(_WAITING_EVENTS)
    running = asyncio.ensure_future(run(events.put))
    try:
        while not (running.done() and events.empty()):
            next_event = asyncio.ensure_future(events.get())
            try:
                await asyncio.wait({next_event, running}, return_when=asyncio.FIRST_COMPLETED)
                if next_event.done():
                    yield next_event.result()
            finally:
                next_event.cancel()
        await running
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await running
