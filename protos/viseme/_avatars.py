"""Avatars on a server: made, looked at, exchanged, deleted."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, cast

import grpc
import grpc.aio

from viseme import _avatar_messages as avatar_messages
from viseme import _messages as messages
from viseme._avatar_messages import avatar_value, operation_value
from viseme._calls import async_errors, errors
from viseme._ending import Ending
from viseme._types import Avatar, AvatarPreview, Operation
from viseme._uploads import OnSent, Upload
from viseme.v1 import avatar_pb2, avatar_pb2_grpc

if TYPE_CHECKING:
    # It exists for type checkers only: at run time one stub serves both kinds of channel.
    from viseme.v1.avatar_pb2_grpc import AvatarServiceAsyncStub

_DELETE_SECONDS = 60.0
"""How long a deletion may take: what is being done to the avatar is ended first."""


class Avatars:
    """The avatars of a server; `Client.avatars`."""

    def __init__(self, channel: grpc.Channel, address: str, timeout: float) -> None:
        self._stub = avatar_pb2_grpc.AvatarServiceStub(channel)
        self._address = address
        self._timeout = timeout

    def get(self, name: str) -> Avatar:
        """Returns one avatar; `name` as in `avatars/demo` or `demo`."""
        request = avatar_pb2.GetAvatarRequest(name=messages.resource("avatars", name))
        with errors(self._address):
            return avatar_value(self._stub.GetAvatar(request, timeout=self._timeout))

    def list(self) -> List[Avatar]:  # noqa: UP006 (`list` is this method here)
        """All avatars, ordered by name."""
        avatars, token = [], ""
        with errors(self._address):
            while True:
                request = avatar_pb2.ListAvatarsRequest(page_token=token)
                response = self._stub.ListAvatars(request, timeout=self._timeout)
                avatars += [avatar_value(message) for message in response.avatars]
                token = response.next_page_token
                if not token:
                    return avatars

    def create(
        self,
        avatar_id: str,
        video: Any,
        *,
        consent: bool,
        display_name: str = "",
        size: int = 0,
        train: bool = False,
        preset: str = "",
        device: str = "",
        seed: int = 0,
        default_voice: str = "",
        request_id: str = "",
        on_sent: OnSent | None = None,
    ) -> Operation:
        """Uploads a video of a person, of which an avatar is made.

        What is returned goes on by itself; `Client.operations` follows it. Its `avatar` is there when it is
        done: prepared, or trained when that was asked for.

        Args:
            avatar_id: The name of the new avatar: lower-case letters, digits and hyphens.
            video: The video, any usual format: its path, its bytes, or an iterable of bytes.
            consent: That the person in the video has agreed to being made into an avatar. Without it nothing
                is made.
            display_name: What people call this avatar; its id unless given.
            size: Width and height of the avatar's picture in pixels, 256 or 512; 0 means 512.
            train: Whether to train as soon as the recording is prepared.
            preset: With `train`: the recipe, `quick`, `person` or `laptop`; the one that suits the device
                unless given.
            device: With `train`: what to train on, `cpu` or a GPU by index, UUID or name; found out unless
                given.
            seed: With `train`: seed of everything random.
            default_voice: The voice the avatar speaks with.
            request_id: Repeating a call with the same id gives the same operation; a fresh one unless given.
            on_sent: Is told meanwhile how many bytes have been sent; from another thread.

        Raises:
            VisemeError: The server does not take the video; `reason` says why. What is wrong with the
                recording itself is told by the operation, and by the avatar's `findings`.
            OSError: The video cannot be read.
            ValueError: It is said how to train, but not to train.
        """
        first = avatar_messages.create_metadata(
            avatar_id,
            video,
            consent=consent,
            display_name=display_name,
            size=size,
            train=train,
            preset=preset,
            device=device,
            seed=seed,
            default_voice=default_voice,
            request_id=request_id,
        )
        upload = Upload(first, video, avatar_messages.create_piece, on_sent)
        return operation_value(self._sent(self._stub.CreateAvatar, upload))

    def train(
        self, name: str, *, preset: str = "", device: str = "", seed: int = 0, request_id: str = ""
    ) -> Operation:
        """Trains an avatar from its recording, also once more.

        Args:
            name: As in `get`.
            preset: As in `create`.
            device: As in `create`.
            seed: As in `create`.
            request_id: As in `create`.

        Raises:
            VisemeError: It cannot be trained, or something is being done to it already.
        """
        request = avatar_messages.train_request(
            name, preset=preset, device=device, seed=seed, request_id=request_id
        )
        with errors(self._address):
            return operation_value(self._stub.TrainAvatar(request, timeout=self._timeout))

    def preview(self, name: str) -> AvatarPreview:
        """The latest picture of an avatar that is being made, or was made here; `name` as in `get`."""
        request = avatar_pb2.GetAvatarPreviewRequest(name=messages.resource("avatars", name))
        with errors(self._address):
            message = self._stub.GetAvatarPreview(request, timeout=self._timeout)
        return avatar_messages.preview_value(message)

    def import_(self, avatar_id: str, bundle: Any) -> Avatar:
        """Stores a bundle (.zip; its path, bytes, or an iterable of bytes) under a new name."""
        upload = Upload(
            avatar_messages.import_metadata(avatar_id),
            bundle,
            lambda data: avatar_pb2.ImportAvatarRequest(data=data),
        )
        return avatar_value(self._sent(self._stub.ImportAvatar, upload))

    def export(self, name: str, path: Any) -> Path:
        """Saves an avatar as a bundle (.zip). Returns the path."""
        request = avatar_pb2.ExportAvatarRequest(name=messages.resource("avatars", name))
        with messages.replacing(path) as file, errors(self._address):
            for response in self._stub.ExportAvatar(request):
                file.write(response.data)
        return Path(path)

    def delete(self, name: str) -> None:
        """Deletes an avatar, its recording, and what is being done to it."""
        request = avatar_pb2.DeleteAvatarRequest(name=messages.resource("avatars", name))
        with errors(self._address):
            self._stub.DeleteAvatar(request, timeout=_DELETE_SECONDS)

    def _sent(self, method: Any, upload: Upload) -> Any:
        """What a call answers to an upload."""
        with errors(self._address, upload), contextlib.ExitStack() as ending:
            ending.callback(upload.close)
            call = method.future(iter(upload))
            # Before the file is closed: half of it must not be taken for the whole.
            ending.callback(call.cancel)
            upload.attach(call)
            return call.result()


class AsyncAvatars:
    """The avatars of a server; `AsyncClient.avatars`."""

    def __init__(self, channel: grpc.aio.Channel, address: str, timeout: float) -> None:
        self._stub = cast("AvatarServiceAsyncStub", avatar_pb2_grpc.AvatarServiceStub(channel))
        self._address = address
        self._timeout = timeout

    async def get(self, name: str) -> Avatar:
        """Returns one avatar; `name` as in `avatars/demo` or `demo`."""
        request = avatar_pb2.GetAvatarRequest(name=messages.resource("avatars", name))
        async with async_errors(self._address):
            return avatar_value(await self._stub.GetAvatar(request, timeout=self._timeout))

    async def list(self) -> List[Avatar]:  # noqa: UP006 (`list` is this method here)
        """All avatars, ordered by name."""
        avatars, token = [], ""
        async with async_errors(self._address):
            while True:
                request = avatar_pb2.ListAvatarsRequest(page_token=token)
                response = await self._stub.ListAvatars(request, timeout=self._timeout)
                avatars += [avatar_value(message) for message in response.avatars]
                token = response.next_page_token
                if not token:
                    return avatars

    async def create(
        self,
        avatar_id: str,
        video: Any,
        *,
        consent: bool,
        display_name: str = "",
        size: int = 0,
        train: bool = False,
        preset: str = "",
        device: str = "",
        seed: int = 0,
        default_voice: str = "",
        request_id: str = "",
        on_sent: OnSent | None = None,
    ) -> Operation:
        """Uploads a video of a person, of which an avatar is made; see `Avatars.create`.

        Args:
            avatar_id: As in `Avatars.create`.
            video: As in `Avatars.create`; an asynchronous iterable of bytes also does.
            consent: As in `Avatars.create`.
            display_name: As in `Avatars.create`.
            size: As in `Avatars.create`.
            train: As in `Avatars.create`.
            preset: As in `Avatars.create`.
            device: As in `Avatars.create`.
            seed: As in `Avatars.create`.
            default_voice: As in `Avatars.create`.
            request_id: As in `Avatars.create`.
            on_sent: Is told meanwhile how many bytes have been sent.

        Raises:
            VisemeError: As in `Avatars.create`.
            OSError: As in `Avatars.create`.
            ValueError: As in `Avatars.create`.
        """
        first = avatar_messages.create_metadata(
            avatar_id,
            video,
            consent=consent,
            display_name=display_name,
            size=size,
            train=train,
            preset=preset,
            device=device,
            seed=seed,
            default_voice=default_voice,
            request_id=request_id,
        )
        upload = Upload(first, video, avatar_messages.create_piece, on_sent)
        return operation_value(await self._sent(self._stub.CreateAvatar, upload))

    async def train(
        self, name: str, *, preset: str = "", device: str = "", seed: int = 0, request_id: str = ""
    ) -> Operation:
        """Trains an avatar from its recording, also once more; see `Avatars.train`."""
        request = avatar_messages.train_request(
            name, preset=preset, device=device, seed=seed, request_id=request_id
        )
        async with async_errors(self._address):
            return operation_value(await self._stub.TrainAvatar(request, timeout=self._timeout))

    async def preview(self, name: str) -> AvatarPreview:
        """The latest picture of an avatar that is being made, or was made here; `name` as in `get`."""
        request = avatar_pb2.GetAvatarPreviewRequest(name=messages.resource("avatars", name))
        async with async_errors(self._address):
            message = await self._stub.GetAvatarPreview(request, timeout=self._timeout)
        return avatar_messages.preview_value(message)

    async def import_(self, avatar_id: str, bundle: Any) -> Avatar:
        """Stores a bundle (.zip; its path, bytes, or an iterable of bytes) under a new name."""
        upload = Upload(
            avatar_messages.import_metadata(avatar_id),
            bundle,
            lambda data: avatar_pb2.ImportAvatarRequest(data=data),
        )
        return avatar_value(await self._sent(self._stub.ImportAvatar, upload))

    async def export(self, name: str, path: Any) -> Path:
        """Saves an avatar as a bundle (.zip). Returns the path."""
        request = avatar_pb2.ExportAvatarRequest(name=messages.resource("avatars", name))
        with messages.replacing(path) as file:
            async with async_errors(self._address):
                async for response in self._stub.ExportAvatar(request):
                    file.write(response.data)
        return Path(path)

    async def delete(self, name: str) -> None:
        """Deletes an avatar, its recording, and what is being done to it."""
        request = avatar_pb2.DeleteAvatarRequest(name=messages.resource("avatars", name))
        async with async_errors(self._address):
            await self._stub.DeleteAvatar(request, timeout=_DELETE_SECONDS)

    async def _sent(self, method: Any, upload: Upload) -> Any:
        """What a call answers to an upload."""
        with contextlib.ExitStack() as ending:
            ending.callback(upload.close)
            async with async_errors(self._address, upload):
                call = method(upload.__aiter__())
                # Before the file is closed: half of it must not be taken for the whole.
                ending.callback(call.cancel)
                upload.attach(call)
                upload.ending = Ending(call)
                return await call
