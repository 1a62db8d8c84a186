"""`viseme.v1.DialogueService`: talks with an avatar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from viseme.v1 import dialogue_pb2, dialogue_pb2_grpc

from server.access.caller import current
from server.api.admission import Admission
from server.api.interceptors import Context
from server.api.messages import fragment_message, seconds, timing_message
from server.api.streams import Upload, events_of, pcm_rate
from server.config import Settings
from server.dialogue.answering import Answers
from server.dialogue.events import (
    Emit,
    Event,
    FilePiece,
    FragmentDrawn,
    Heard,
    RenderDone,
    SentenceBegun,
    StageChanged,
    TurnDone,
)
from server.dialogue.hosts import HostAccess
from server.dialogue.turn import Turn, TurnRequest
from server.errors import FieldInvalid
from server.media.decode import AudioDecoder
from server.stages import Stages
from server.store.tenants import TenantStores

Request = dialogue_pb2.ReplyRequest
Response = dialogue_pb2.ReplyResponse


class DialogueServicer(dialogue_pb2_grpc.DialogueServiceServicer):
    """See dialogue.proto.

    Args:
        settings: Limits and deadlines.
        stores: Who can answer.
        hosts: The model hosts.
        answers: Who writes the answers.
        decoder: Reads recordings.
        admission: How many turns may run.
        stages: Sees what they do.
        scratch: Directory for the files of running turns.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        stores: TenantStores,
        hosts: HostAccess,
        answers: Answers,
        decoder: AudioDecoder,
        admission: Admission,
        stages: Stages,
        scratch: Path,
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._hosts = hosts
        self._answers = answers
        self._decoder = decoder
        self._admission = admission
        self._stages = stages
        self._scratch = scratch

    async def Reply(  # noqa: N802 (named by the proto)
        self, request_iterator: AsyncIterator[Request], context: Context
    ) -> AsyncIterator[Response]:
        """One voice note or typed text in; events and one finished MP4 out."""
        with self._admission.admit(current().tenant):
            upload: Upload[Request.Config] = Upload(request_iterator, self._settings)
            config = await upload.config()
            request = await self._request(config, upload)

            async def run(emit: Emit) -> None:
                await Turn(
                    request,
                    settings=self._settings,
                    hosts=self._hosts,
                    answers=self._answers,
                    decoder=self._decoder,
                    scratch=self._scratch,
                    emit=emit,
                ).run()

            with self._stages.watch("turn") as watch:
                async with aclosing(events_of(run)) as events:
                    async for event in events:
                        watch.see(event)
                        yield _message(event)

    async def _request(self, config: Request.Config, upload: Upload[Request.Config]) -> TurnRequest:
        """Checks the config, before anything is uploaded.

        Raises:
            FieldInvalid: A field has a value it cannot have.
            AvatarNotFound: There is no such avatar.
        """
        most = self._settings.limits.max_text_characters
        if len(config.text) > most:
            raise FieldInvalid(
                f"The text has {len(config.text)} characters; at most {most} are accepted.",
                fix="Say it in fewer words, or in several messages.",
                field="config.text",
            )
        if config.text and not config.text.strip():
            raise FieldInvalid(
                "The text is blank.", fix="Write what the avatar shall answer.", field="config.text"
            )
        sample_rate = pcm_rate(config)
        avatar = await asyncio.to_thread(self._stores.of(current().tenant).avatars.get, config.avatar)
        return TurnRequest(
            avatar=avatar,
            said=None if config.text else upload.audio(),
            sample_rate=sample_rate,
            text=config.text.strip(),
            voice=config.voice,
            language=config.language,
            seed=config.seed,
            stream_fragments=config.stream_fragments,
        )


def _message(event: Event) -> Response:
    """The response that tells an event."""
    match event:
        case StageChanged():
            response = Response(progress=_progress(event))
        case Heard():
            response = Response(
                transcript=dialogue_pb2.Transcript(
                    text=event.text, language=event.language, damaged=event.damaged
                )
            )
        case SentenceBegun():
            response = Response(sentence=dialogue_pb2.ReplySentence(index=event.index, text=event.text))
        case FragmentDrawn():
            response = Response(fragment=fragment_message(event))
        case FilePiece():
            response = Response(mp4=event.data)
        case TurnDone():
            response = Response(summary=_summary(event))
        case RenderDone():
            raise TypeError("A turn does not end as a render does.")
    return response


def _progress(changed: StageChanged) -> dialogue_pb2.Progress:
    state = dialogue_pb2.Progress.STATE_FINISHED if changed.finished else dialogue_pb2.Progress.STATE_STARTED
    return dialogue_pb2.Progress(stage=changed.stage, state=state, elapsed=seconds(changed.elapsed))


def _summary(done: TurnDone) -> dialogue_pb2.ReplySummary:
    return dialogue_pb2.ReplySummary(
        text=done.text,
        provider=done.provider,
        frame_count=done.frame_count,
        audio_duration=seconds(done.audio_seconds),
        size_bytes=done.size_bytes,
        sha256=done.sha256,
        truncated=done.truncated,
        timings=[timing_message(times) for times in done.timings],
    )
