"""The two directions of a streaming call: reading what is uploaded, and giving events as they happen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from google.protobuf.message import Message as ProtoMessage
from viseme.v1 import dialogue_pb2, media_pb2, render_pb2

from server.config import Settings
from server.dialogue.events import Emit, Event
from server.errors import FieldInvalid, FieldRequired, StageTimeout
from server.media.resample import MAX_RATE, MIN_RATE

_WAITING_EVENTS = 16

Request = TypeVar("Request")
Message = TypeVar("Message", bound=ProtoMessage)
Config = TypeVar("Config", dialogue_pb2.ReplyRequest.Config, render_pb2.StreamRenderRequest.Config)


class Upload(Generic[Config]):
    """A stream of requests whose first is the config and whose others are audio.

    Args:
        requests: The stream, of messages with `config` and `audio`.
        settings: How slow it may be.
    """

    def __init__(
        self,
        requests: AsyncIterator[dialogue_pb2.ReplyRequest | render_pb2.StreamRenderRequest],
        settings: Settings,
    ) -> None:
        self._requests = Paced(requests, settings)

    async def config(self) -> Config:
        """The first request.

        Raises:
            FieldRequired: It is something else.
        """
        first = await self._requests.next()
        if first is None or first.WhichOneof("payload") != "config":
            raise FieldRequired("config is required, and must be the first message.", field="config")
        return first.config  # type: ignore[return-value]  # which of the two, the caller's annotation says

    async def audio(self) -> AsyncIterator[bytes]:
        """The others.

        Raises:
            FieldInvalid: Another config is among them.
            StageTimeout: The next one does not come.
        """
        while (request := await self._requests.next()) is not None:
            if request.WhichOneof("payload") == "config":
                raise FieldInvalid("config may be sent only once.", field="config")
            yield request.audio


class Paced(Generic[Message]):
    """A stream of requests that must keep coming: no gap may be too long, nor all of it too slow.

    Only the time that is spent waiting counts, so whoever is held back by the server is never too slow.

    Args:
        requests: The stream.
        settings: How slow it may be.
    """

    def __init__(self, requests: AsyncIterator[Message], settings: Settings) -> None:
        self._requests = aiter(requests)
        self._gap_seconds = settings.deadlines.upload
        self._slowest = settings.limits.min_upload_bytes_per_second
        self._waited = 0.0
        self._size = 0

    async def next(self) -> Message | None:
        """The next request; None at the end.

        Raises:
            StageTimeout: It does not come in time, or all of them come too slowly.
        """
        began = time.monotonic()
        request = await next_in_time(self._requests, self._gap_seconds)
        self._waited += time.monotonic() - began
        if request is None:
            return None
        self._size += request.ByteSize()
        if self._waited > self._gap_seconds and self._size < self._slowest * self._waited:
            raise StageTimeout(
                f"The upload is too slow: {self._size} bytes in {self._waited:.0f} s.", stage="upload"
            )
        return request


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
