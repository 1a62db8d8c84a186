"""The asynchronous client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, AsyncGenerator, cast

from viseme import _messages as messages
from viseme._admin import AsyncAdmin
from viseme._avatars import AsyncAvatars
from viseme._calls import async_errors
from viseme._connection import Connection
from viseme._ending import Ending
from viseme._operations import AsyncOperations
from viseme._types import Event, Fragment, RenderSummary, Reply
from viseme._uploads import Upload
from viseme.v1 import dialogue_pb2, dialogue_pb2_grpc, render_pb2, render_pb2_grpc

if TYPE_CHECKING:
    # These exist for type checkers only: at run time one stub serves both kinds of channel.
    from viseme.v1.dialogue_pb2_grpc import DialogueServiceAsyncStub
    from viseme.v1.render_pb2_grpc import RenderServiceAsyncStub


class AsyncClient:
    """Talks with a viseme server, from one event loop. Its methods are those of `Client`.

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
        self._channel = connection.async_channel(address, messages.CHANNEL_OPTIONS)
        self._dialogue = cast(
            "DialogueServiceAsyncStub", dialogue_pb2_grpc.DialogueServiceStub(self._channel)
        )
        self._rendering = cast("RenderServiceAsyncStub", render_pb2_grpc.RenderServiceStub(self._channel))
        self.avatars = AsyncAvatars(self._channel, address, timeout)
        self.operations = AsyncOperations(self._channel, address, timeout)
        self.admin = AsyncAdmin(self._channel, address, timeout)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls under way are cancelled."""
        await self._channel.close(None)

    async def reply(
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
        """Says something to an avatar and returns its answer as a video; see `Client.reply`.

        Args:
            audio: As in `Client.reply`; an asynchronous iterable of bytes also does.
            text: As in `Client.reply`.
            avatar: As in `Client.reply`.
            voice: As in `Client.reply`.
            language: As in `Client.reply`.
            sample_rate: As in `Client.reply`.
            seed: As in `Client.reply`.
            save_to: As in `Client.reply`.
            on_event: As in `Client.reply`.
            timeout: As in `Client.reply`.

        Raises:
            VisemeError: As in `Client.reply`.
            ValueError: As in `Client.reply`.
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
        try:
            async for last in events:
                if on_event is not None:
                    on_event(last)
        finally:
            await events.aclose()
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
    ) -> AsyncGenerator[Event, None]:
        """Like `reply`, but gives the events as they happen; see `Client.stream_reply`.

        Args:
            audio: As in `reply`.
            text: As in `reply`.
            avatar: As in `reply`.
            voice: As in `reply`.
            language: As in `reply`.
            sample_rate: As in `reply`.
            seed: As in `reply`.
            fragments: As in `Client.stream_reply`.
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

    async def _events(
        self, config: dialogue_pb2.ReplyRequest, audio: Any, save_to: Any, timeout: float | None
    ) -> AsyncGenerator[Event, None]:
        upload = Upload(config, audio, lambda data: dialogue_pb2.ReplyRequest(audio=data))
        builder = messages.ReplyBuilder(save_to)
        call = self._dialogue.Reply(upload.__aiter__(), timeout=timeout)
        upload.attach(call)
        upload.ending = Ending(call)
        try:
            async with async_errors(self.address, upload):
                async for response in call:
                    yield builder.event(response)
        finally:
            call.cancel()
            upload.close()
            builder.close()

    async def render(
        self,
        audio: Any,
        *,
        avatar: str = messages.DEFAULT_AVATAR,
        sample_rate: int | None = None,
        seed: int = 0,
        timeout: float | None = None,
    ) -> AsyncGenerator[Fragment | RenderSummary, None]:
        """Draws an avatar that speaks given audio; see `Client.render`.

        Args:
            audio: As in `reply`.
            avatar: Who is drawn.
            sample_rate: As in `Client.render`.
            seed: Seed of blinks and head motion.
            timeout: Seconds the whole render may take.

        Yields:
            The pieces of a fragmented MP4, and a `RenderSummary` at the end.

        Raises:
            VisemeError: As in `Client.render`.
        """
        config = messages.render_config(avatar, sample_rate, seed)
        upload = Upload(config, audio, lambda data: render_pb2.StreamRenderRequest(audio=data))
        call = self._rendering.StreamRender(upload.__aiter__(), timeout=timeout)
        upload.attach(call)
        upload.ending = Ending(call)
        try:
            async with async_errors(self.address, upload):
                async for response in call:
                    yield messages.render_event(response)
        finally:
            call.cancel()
            upload.close()
