"""The asynchronous client."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, AsyncGenerator, AsyncIterator, List, cast

import grpc
import grpc.aio

from viseme import _messages as messages
from viseme._ending import Ending
from viseme._errors import from_grpc
from viseme._types import Avatar, Event, Fragment, Host, RenderSummary, Reply, ServerStatus
from viseme._uploads import Upload
from viseme.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    avatar_pb2,
    avatar_pb2_grpc,
    dialogue_pb2,
    dialogue_pb2_grpc,
    render_pb2,
    render_pb2_grpc,
)

if TYPE_CHECKING:
    # These exist for type checkers only: at run time one stub serves both kinds of channel.
    from viseme.v1.admin_pb2_grpc import AdminServiceAsyncStub
    from viseme.v1.avatar_pb2_grpc import AvatarServiceAsyncStub
    from viseme.v1.dialogue_pb2_grpc import DialogueServiceAsyncStub
    from viseme.v1.render_pb2_grpc import RenderServiceAsyncStub


class AsyncClient:
    """Talks with a viseme server, from one event loop. Its methods are those of `Client`.

    Args:
        address: `HOST:PORT` of the server.
        timeout: Seconds that short requests (not replies and renders) may take.

    Attributes:
        avatars: Lists, imports, exports and deletes avatars.
        admin: For the operator of the server.
    """

    def __init__(self, address: str = messages.DEFAULT_ADDRESS, *, timeout: float = 30.0) -> None:
        self.address = address
        self._channel = grpc.aio.insecure_channel(address, options=messages.CHANNEL_OPTIONS)
        self._dialogue = cast(
            "DialogueServiceAsyncStub", dialogue_pb2_grpc.DialogueServiceStub(self._channel)
        )
        self._rendering = cast("RenderServiceAsyncStub", render_pb2_grpc.RenderServiceStub(self._channel))
        self.avatars = AsyncAvatars(self._channel, address, timeout)
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
            async with _errors(self.address, upload):
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
            async with _errors(self.address, upload):
                async for response in call:
                    yield messages.render_event(response)
        finally:
            call.cancel()
            upload.close()


class AsyncAvatars:
    """The avatars of a server; `AsyncClient.avatars`."""

    def __init__(self, channel: grpc.aio.Channel, address: str, timeout: float) -> None:
        self._stub = cast("AvatarServiceAsyncStub", avatar_pb2_grpc.AvatarServiceStub(channel))
        self._address = address
        self._timeout = timeout

    async def get(self, name: str) -> Avatar:
        """Returns one avatar; `name` as in `avatars/demo` or `demo`."""
        request = avatar_pb2.GetAvatarRequest(name=messages.resource("avatars", name))
        async with _errors(self._address):
            return messages.avatar_value(await self._stub.GetAvatar(request, timeout=self._timeout))

    async def list(self) -> List[Avatar]:  # noqa: UP006 (`list` is this method here)
        """All avatars, ordered by name."""
        avatars, token = [], ""
        async with _errors(self._address):
            while True:
                request = avatar_pb2.ListAvatarsRequest(page_token=token)
                response = await self._stub.ListAvatars(request, timeout=self._timeout)
                avatars += [messages.avatar_value(message) for message in response.avatars]
                token = response.next_page_token
                if not token:
                    return avatars

    async def import_(self, avatar_id: str, bundle: Any) -> Avatar:
        """Stores a bundle (.zip; its path, bytes, or an iterable of bytes) under a new name."""
        upload = Upload(
            messages.import_metadata(avatar_id),
            bundle,
            lambda data: avatar_pb2.ImportAvatarRequest(data=data),
        )
        with contextlib.closing(upload):
            async with _errors(self._address, upload):
                call = self._stub.ImportAvatar(upload.__aiter__())
                upload.attach(call)
                upload.ending = Ending(call)
                return messages.avatar_value(await call)

    async def export(self, name: str, path: Any) -> Path:
        """Saves an avatar as a bundle (.zip). Returns the path."""
        request = avatar_pb2.ExportAvatarRequest(name=messages.resource("avatars", name))
        with messages.replacing(path) as file:
            async with _errors(self._address):
                async for response in self._stub.ExportAvatar(request):
                    file.write(response.data)
        return Path(path)

    async def delete(self, name: str) -> None:
        """Deletes an avatar."""
        request = avatar_pb2.DeleteAvatarRequest(name=messages.resource("avatars", name))
        async with _errors(self._address):
            await self._stub.DeleteAvatar(request, timeout=self._timeout)


class AsyncAdmin:
    """For the operator of a server; `AsyncClient.admin`."""

    def __init__(self, channel: grpc.aio.Channel, address: str, timeout: float) -> None:
        self._stub = cast("AdminServiceAsyncStub", admin_pb2_grpc.AdminServiceStub(channel))
        self._address = address
        self._timeout = timeout

    async def status(self) -> ServerStatus:
        """What the server is and how it is doing."""
        async with _errors(self._address):
            return messages.status_value(
                await self._stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=self._timeout)
            )

    async def hosts(self) -> list[Host]:
        """The model hosts, running or not."""
        hosts, token = [], ""
        async with _errors(self._address):
            while True:
                request = admin_pb2.ListHostsRequest(page_token=token)
                response = await self._stub.ListHosts(request, timeout=self._timeout)
                hosts += [messages.host_value(message) for message in response.hosts]
                token = response.next_page_token
                if not token:
                    return hosts

    async def restart_host(self, name: str, grace: float | None = None) -> Host:
        """Stops a host after its running calls (at most `grace` seconds) and starts it again."""
        async with _errors(self._address):
            return messages.host_value(await self._stub.RestartHost(messages.restart_request(name, grace)))

    async def host_log(self, name: str, lines: int = 100) -> str:
        """The end of a host's log."""
        request = admin_pb2.GetHostLogRequest(name=messages.resource("hosts", name), lines=lines)
        async with _errors(self._address):
            return (await self._stub.GetHostLog(request, timeout=self._timeout)).text


@contextlib.asynccontextmanager
async def _errors(address: str, upload: Upload | None = None) -> AsyncIterator[None]:
    """Raises what went wrong: with the upload on this side, or on the server's as a VisemeError."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        ended = error if upload is None or upload.ending is None else await upload.ending.error(error)
        raise from_grpc(ended, address) from error
    except asyncio.CancelledError:
        # A call that is cancelled because reading failed looks like this task's own cancellation.
        if upload is not None and upload.error is not None:
            raise upload.error from None
        raise
