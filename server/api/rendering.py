"""`viseme.v1.RenderService`: draws an avatar that speaks given audio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from viseme.v1 import render_pb2, render_pb2_grpc

from server.access.caller import current
from server.api.admission import Admission
from server.api.interceptors import Context
from server.api.messages import fragment_message, seconds, timing_message
from server.api.streams import Upload, events_of, pcm_rate
from server.config import Settings
from server.dialogue.audio_render import AudioRender, AudioRenderRequest
from server.dialogue.events import Emit, FragmentDrawn, RenderDone
from server.dialogue.hosts import HostAccess
from server.media.decode import AudioDecoder
from server.stages import Stages
from server.store.tenants import TenantStores

Request = render_pb2.StreamRenderRequest
Response = render_pb2.StreamRenderResponse


class RenderServicer(render_pb2_grpc.RenderServiceServicer):
    """See render.proto.

    Args:
        settings: Limits and deadlines.
        stores: Who can be drawn.
        hosts: The model hosts.
        decoder: Reads recordings.
        admission: How many renders may run.
        stages: Sees what they do.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        stores: TenantStores,
        hosts: HostAccess,
        decoder: AudioDecoder,
        admission: Admission,
        stages: Stages,
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._hosts = hosts
        self._decoder = decoder
        self._admission = admission
        self._stages = stages

    async def StreamRender(  # noqa: N802 (named by the proto)
        self, request_iterator: AsyncIterator[Request], context: Context
    ) -> AsyncIterator[Response]:
        """Audio in, fragmented MP4 out, as it is drawn."""
        with self._admission.admit(current().tenant):
            upload: Upload[Request.Config] = Upload(request_iterator, self._settings)
            config = await upload.config()
            sample_rate = pcm_rate(config)
            avatar = await asyncio.to_thread(self._stores.of(current().tenant).avatars.get, config.avatar)
            request = AudioRenderRequest(avatar, upload.audio(), sample_rate, config.seed)

            async def run(emit: Emit) -> None:
                await AudioRender(
                    request,
                    settings=self._settings,
                    hosts=self._hosts,
                    decoder=self._decoder,
                    emit=emit,
                ).run()

            with self._stages.watch("render") as watch:
                async with aclosing(events_of(run)) as events:
                    async for event in events:
                        watch.see(event)
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
