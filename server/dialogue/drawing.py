"""The render host's call: speech in, fragments of video out, with a deadline that knows who waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from viseme._ending import Ending
from viseme.host.v1 import host_pb2

from server.dialogue.concurrency import together
from server.dialogue.events import FragmentDrawn
from server.errors import InternalError, StageTimeout
from server.host_calls import calling, renderer


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is to be drawn.

    Attributes:
        bundle: Directory of the avatar's bundle as the host sees it.
        seed: Seed of blinks and head motion.
        sample_rate: Samples a second of the speech.
    """

    bundle: Path
    seed: int
    sample_rate: int


class _Watch:
    """The deadline of a render host. It runs only while the host owes video and nobody holds it back."""

    def __init__(self, deadline: asyncio.Timeout, seconds: float) -> None:
        self._deadline = deadline
        self._seconds = seconds
        self.has_speech = True
        self.held_back = False

    def set(self, *, has_speech: bool | None = None, held_back: bool | None = None) -> None:
        """Notes what changed, and starts the time again or stops it."""
        self.has_speech = self.has_speech if has_speech is None else has_speech
        self.held_back = self.held_back if held_back is None else held_back
        runs = self.has_speech and not self.held_back
        self._deadline.reschedule(asyncio.get_running_loop().time() + self._seconds if runs else None)


async def draw(
    channel: grpc.aio.Channel,
    host: str,
    drawing: Drawing,
    speech: AsyncIterable[host_pb2.RenderRequest.Speech],
    take: Callable[[FragmentDrawn], Awaitable[None]],
    *,
    seconds: float,
) -> host_pb2.RenderResponse.Summary:
    """Draws speech as it comes.

    Args:
        channel: To the render host.
        host: Its name, for errors.
        drawing: Avatar, seed and sample rate.
        speech: The pieces of speech, consecutive in time.
        take: Is given each fragment; while it waits, the host is held back.
        seconds: Longest time from a piece of speech to the next piece of video.

    Returns:
        The host's summary.

    Raises:
        StageTimeout: The host gave no video in time.
        HostLost: The host died.
        VisemeError: What else the host reported.
    """
    # Without an iterator the requests are written one by one; the type stubs know only the other way.
    call = renderer(channel).Render()  # type: ignore[call-arg]
    ending = Ending(call)
    summaries: list[host_pb2.RenderResponse.Summary] = []

    async def feed(watch: _Watch) -> None:
        config = host_pb2.RenderRequest.Config(
            bundle=str(drawing.bundle), seed=drawing.seed, sample_rate=drawing.sample_rate
        )
        try:
            await call.write(host_pb2.RenderRequest(config=config))
            watch.set(has_speech=False)
            async for piece in speech:
                watch.set(has_speech=True)
                await call.write(host_pb2.RenderRequest(speech=piece))
                watch.set(has_speech=False)
            watch.set(has_speech=True)
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The call has ended; how, the reading side is told.
            watch.set(has_speech=True)

    async def collect(watch: _Watch) -> None:
        responses = aiter(call)
        while True:
            async with calling(host, ending):
                response = await anext(responses, None)
            if response is None:
                break
            watch.set(held_back=True)
            if response.WhichOneof("payload") == "summary":
                summaries.append(response.summary)
            else:
                fragment = response.fragment
                await take(FragmentDrawn(fragment.data, fragment.first_frame, fragment.frame_count))
            watch.set(held_back=False)
        if not summaries or not watch.has_speech:
            raise InternalError(f"The {host} host ended before everything was drawn.", host=host)

    try:
        async with asyncio.timeout(seconds) as deadline:
            watch = _Watch(deadline, seconds)
            await together(feed(watch), collect(watch))
    except TimeoutError:
        raise StageTimeout(
            f"The {host} host drew nothing for {seconds:g} s.", stage="render", host=host
        ) from None
    finally:
        call.cancel()
    return summaries[-1]
