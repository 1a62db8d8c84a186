"""`viseme.v1.RenderService`: draws an avatar that speaks given audio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from viseme.v1 import render_pb2, render_pb2_grpc

from server.api.admission import Admission
from server.api.interceptors import Context
from server.api.messages import fragment_message, seconds, timing_message
from server.api.streams import Upload, events_of, pcm_rate
from server.config import Settings
from server.dialogue.audio_render import AudioRender, AudioRenderRequest
from server.dialogue.events import Emit, FragmentDrawn, RenderDone
from server.dialogue.hosts import HostAccess
from server.media.decode import AudioDecoder
from server.store.avatars import AvatarStore

Request = render_pb2.StreamRenderRequest
Response = render_pb2.StreamRenderResponse


class RenderServicer(render_pb2_grpc.RenderServiceServicer):
    """See render.proto.

    Args:
        settings: Limits and deadlines.
        avatars: Who can be drawn.
        hosts: The model hosts.
        decoder: Reads recordings.
        admission: How many renders may run.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        avatars: AvatarStore,
        hosts: HostAccess,
        decoder: AudioDecoder,
        admission: Admission,
    ) -> None:
        self._settings = settings
        self._avatars = avatars
        self._hosts = hosts
        self._decoder = decoder
        self._admission = admission

    async def StreamRender(  # noqa: N802 (named by the proto)
        self, request_iterator: AsyncIterator[Request], context: Context
    ) -> AsyncIterator[Response]:
        """Audio in, fragmented MP4 out, as it is drawn."""
        with self._admission.admit():
            upload: Upload[Request.Config] = Upload(request_iterator, self._settings.deadlines.upload)
            config = await upload.config()
            sample_rate = pcm_rate(config)
            avatar = await asyncio.to_thread(self._avatars.get, config.avatar)
            request = AudioRenderRequest(avatar, upload.audio(), sample_rate, config.seed)

            async def run(emit: Emit) -> None:
                await AudioRender(
                    request,
                    settings=self._settings,
                    hosts=self._hosts,
                    decoder=self._decoder,
                    emit=emit,
                ).run()

            async with aclosing(events_of(run)) as events:
                async for event in events:
                    if isinstance(event, FragmentDrawn):
                        yield Response(fragment=fragment_message(event))
                    elif isinstance(event, RenderDone):
                        yield Response(summary=_summary(event))


def _summary(done: RenderDone) -> Response.Summary:
    return Response.Summary(
        frame_count=done.frame_count,
        audio_duration=seconds(done.audio_seconds),
        timings=[timing_message(times) for times in done.timings],
    )
