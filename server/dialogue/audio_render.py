"""Draws an avatar that speaks given audio: raw samples while they arrive, files when they have arrived."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Final

import structlog
from viseme.host.v1 import host_pb2

from server.config import Settings
from server.dialogue.drawing import Drawing, draw
from server.dialogue.events import Emit, FragmentDrawn, RenderDone, Stopwatch
from server.dialogue.hosts import HostAccess
from server.errors import AudioEmpty, AudioTooLong, FieldInvalid
from server.media.decode import AudioDecoder, DecodeLimits
from server.store.avatars import StoredAvatar

_PIECE_SECONDS: Final = 0.5
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("render")

Speech = host_pb2.RenderRequest.Speech


@dataclass(frozen=True, slots=True)
class AudioRenderRequest:
    """What is to be drawn.

    Attributes:
        avatar: Who is drawn.
        audio: The audio as it arrives.
        sample_rate: Samples a second of raw mono 16-bit samples; 0 when the audio is a file in a container.
        seed: Seed of blinks and head motion.
    """

    avatar: StoredAvatar
    audio: AsyncIterable[bytes]
    sample_rate: int
    seed: int


class AudioRender:
    """Draws given audio.

    Args:
        request: What is to be drawn.
        settings: Deadlines, limits, names of the hosts.
        hosts: The model hosts.
        decoder: Reads files.
        emit: Takes the events; while it waits, drawing is held back.
    """

    def __init__(
        self,
        request: AudioRenderRequest,
        *,
        settings: Settings,
        hosts: HostAccess,
        decoder: AudioDecoder,
        emit: Emit,
    ) -> None:
        self._request = request
        self._settings = settings
        self._hosts = hosts
        self._decoder = decoder
        self._emit = emit
        self._watch = Stopwatch(emit)

    async def run(self) -> None:
        """Draws to the end; the last event is `RenderDone`.

        Raises:
            VisemeError: What went wrong, wherever it did.
        """
        host = self._settings.hosts.render
        early = self._hosts.start_early(host)
        try:
            request = self._request
            if request.sample_rate:
                sample_rate, speech = request.sample_rate, self._raw()
            else:
                sample_rate, speech = await self._decoded()
            channel = await self._hosts.channel(host)
            await self._watch.begin("render")
            bundle = await self._hosts.bundle(host, request.avatar)
            drawing = Drawing(bundle, request.seed, sample_rate)
            seconds = self._settings.deadlines.render
            summary = await draw(channel, host, drawing, speech, self._take, seconds=seconds)
            await self._watch.end("render")
        finally:
            early.cancel()
        audio_seconds = summary.sample_count / sample_rate
        timings = tuple(self._watch.stages.values())
        await self._emit(RenderDone(summary.frame_count, audio_seconds, timings))
        _log.info("render_done", frames=summary.frame_count, seconds=round(self._watch.elapsed(), 3))

    async def _take(self, fragment: FragmentDrawn) -> None:
        if fragment.frame_count:
            self._watch.output("render")
        await self._emit(fragment)

    async def _decoded(self) -> tuple[int, AsyncIterator[Speech]]:
        """Sample rate and speech of a file."""
        limits = self._settings.limits
        audio = await self._decoder.decode(
            self._until_arrived(),
            DecodeLimits(
                max_upload_bytes=limits.max_upload_bytes,
                max_audio_seconds=limits.max_render_seconds,
                wall_seconds=self._settings.deadlines.decode,
            ),
            sample_rate=None,  # The sound track keeps the quality of the recording.
        )
        self._watch.output("decode")
        await self._watch.end("decode")
        step = round(_PIECE_SECONDS * audio.sample_rate)

        async def speech() -> AsyncIterator[Speech]:
            for start in range(0, len(audio.pcm), step):
                yield Speech(pcm=audio.pcm[start : start + step].astype("<i2").tobytes())

        return audio.sample_rate, speech()

    async def _until_arrived(self) -> AsyncIterator[bytes]:
        async for piece in self._request.audio:
            yield piece
        self._watch.restart()
        await self._watch.begin("decode")

    async def _raw(self) -> AsyncIterator[Speech]:
        """Speech of raw samples while they arrive; they may be split anywhere.

        Raises:
            AudioEmpty: There are none.
            AudioTooLong: There are too many.
            FieldInvalid: The last one is cut in two.
        """
        most = self._settings.limits.max_render_seconds
        count, rest = 0, b""
        async for piece in self._request.audio:
            data = rest + piece
            whole = len(data) // 2 * 2
            rest = data[whole:]
            count += whole // 2
            if count > most * self._request.sample_rate:
                raise AudioTooLong(f"The audio is longer than the {most:g} s that are accepted.")
            if whole:
                yield Speech(pcm=data[:whole])
        if rest:
            raise FieldInvalid("The audio ends in the middle of a sample.", field="audio")
        if not count:
            raise AudioEmpty("The audio is empty: not one sample arrived.")
