"""The synchronous client."""

from __future__ import annotations

import contextlib
from typing import Any, Generator

from viseme import _messages as messages
from viseme._admin import Admin
from viseme._avatars import Avatars
from viseme._calls import errors
from viseme._connection import Connection
from viseme._operations import Operations
from viseme._types import Event, Fragment, RenderSummary, Reply
from viseme._uploads import Upload
from viseme.v1 import dialogue_pb2, dialogue_pb2_grpc, render_pb2, render_pb2_grpc


class Client:
    """Talks with a viseme server. May be used from any number of threads.

    Args:
        address: `HOST:PORT` of the server.
        timeout: Seconds that short requests (not replies and renders) may take.
        token: For a server that asks for one; None means what the environment says, see `viseme._connection`.
        token_file: A file with the token, which nobody else may read; the same.
        ca_file: PEM of the authority that signed the server's certificate; the same.
        cert_file: PEM of the caller's own certificate, for servers that ask for one; the same.
        key_file: PEM of its key; the same.

    Attributes:
        avatars: Makes, lists, imports, exports and deletes avatars.
        operations: Follows and cancels the work on avatars.
        admin: For the operator of the server.
    """

    def __init__(
        self,
        address: str = messages.DEFAULT_ADDRESS,
        *,
        timeout: float = 30.0,
        token: str | None = None,
        token_file: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
    ) -> None:
        self.address = address
        connection = Connection(token, token_file, ca_file, cert_file, key_file)
        self._channel = connection.channel(address, messages.CHANNEL_OPTIONS)
        self._dialogue = dialogue_pb2_grpc.DialogueServiceStub(self._channel)
        self._rendering = render_pb2_grpc.RenderServiceStub(self._channel)
        self.avatars = Avatars(self._channel, address, timeout)
        self.operations = Operations(self._channel, address, timeout)
        self.admin = Admin(self._channel, address, timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        self._channel.close()

    def reply(
        self,
        audio: Any = None,
        *,
        text: str | None = None,
        avatar: str = messages.DEFAULT_AVATAR,
        voice: str = "",
        language: str = "",
        sample_rate: int | None = None,
        seed: int = 0,
        save_to: Any = None,
        on_event: messages.OnEvent | None = None,
        timeout: float | None = None,
    ) -> Reply:
        """Says something to an avatar and returns its answer as a video.

        Args:
            audio: A voice note in any usual format: its path, its bytes, or an iterable of bytes.
            text: A typed text, instead of audio.
            avatar: Who answers.
            voice: The voice that speaks; the avatar's own unless given.
            language: BCP 47 tag of what is said; detected unless given.
            sample_rate: For raw mono 16-bit samples instead of a file: samples a second.
            seed: Seed of blinks and head motion.
            save_to: File the video is written to while it arrives, instead of into memory.
            on_event: Is told what happens meanwhile.
            timeout: Seconds the whole reply may take.

        Raises:
            VisemeError: The server cannot answer; `reason` says why.
            ValueError: Both audio and text are given, or neither.
        """
        events = self.stream_reply(
            audio,
            text=text,
            avatar=avatar,
            voice=voice,
            language=language,
            sample_rate=sample_rate,
            seed=seed,
            fragments=False,
            save_to=save_to,
            timeout=timeout,
        )
        last: Event | None = None
        with contextlib.closing(events):
            for last in events:
                if on_event is not None:
                    on_event(last)
        return messages.whole(last)

    def stream_reply(
        self,
        audio: Any = None,
        *,
        text: str | None = None,
        avatar: str = messages.DEFAULT_AVATAR,
        voice: str = "",
        language: str = "",
        sample_rate: int | None = None,
        seed: int = 0,
        fragments: bool = True,
        save_to: Any = None,
        timeout: float | None = None,
    ) -> Generator[Event, None, None]:
        """Like `reply`, but gives the events as they happen; the last is the `Reply`.

        Closing the generator before its end cancels the reply.

        Args:
            audio: As in `reply`.
            text: As in `reply`.
            avatar: As in `reply`.
            voice: As in `reply`.
            language: As in `reply`.
            sample_rate: As in `reply`.
            seed: As in `reply`.
            fragments: Also give the video while it is being drawn, as `Fragment`s.
            save_to: As in `reply`.
            timeout: As in `reply`.

        Raises:
            VisemeError: As in `reply`.
            ValueError: As in `reply`.
        """
        config = messages.reply_config(
            audio=audio,
            text=text,
            avatar=avatar,
            voice=voice,
            language=language,
            sample_rate=sample_rate,
            seed=seed,
            fragments=fragments,
        )
        return self._events(config, audio, save_to, timeout)

    def _events(
        self, config: dialogue_pb2.ReplyRequest, audio: Any, save_to: Any, timeout: float | None
    ) -> Generator[Event, None, None]:
        upload = Upload(config, audio, lambda data: dialogue_pb2.ReplyRequest(audio=data))
        builder = messages.ReplyBuilder(save_to)
        call: Any = self._dialogue.Reply(iter(upload), timeout=timeout)
        upload.attach(call)
        try:
            with errors(self.address, upload):
                for response in call:
                    yield builder.event(response)
        finally:
            call.cancel()
            upload.close()
            builder.close()

    def render(
        self,
        audio: Any,
        *,
        avatar: str = messages.DEFAULT_AVATAR,
        sample_rate: int | None = None,
        seed: int = 0,
        timeout: float | None = None,
    ) -> Generator[Fragment | RenderSummary, None, None]:
        """Draws an avatar that speaks given audio; gives the video while it is being drawn.

        Closing the generator before its end cancels the render.

        Args:
            audio: As in `reply`.
            avatar: Who is drawn.
            sample_rate: For raw mono 16-bit samples, drawn while they arrive: samples a second.
            seed: Seed of blinks and head motion.
            timeout: Seconds the whole render may take.

        Yields:
            The pieces of a fragmented MP4, and a `RenderSummary` at the end.

        Raises:
            VisemeError: The server cannot draw it; `reason` says why.
        """
        config = messages.render_config(avatar, sample_rate, seed)
        upload = Upload(config, audio, lambda data: render_pb2.StreamRenderRequest(audio=data))
        call: Any = self._rendering.StreamRender(iter(upload), timeout=timeout)
        upload.attach(call)
        try:
            with errors(self.address, upload):
                for response in call:
                    yield messages.render_event(response)
        finally:
            call.cancel()
            upload.close()
