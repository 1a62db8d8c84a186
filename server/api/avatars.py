"""`viseme.v1.AvatarService`: avatars as stored and exchanged."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from viseme.v1 import avatar_pb2, avatar_pb2_grpc

from server.api.interceptors import Context
from server.api.pages import page
from server.config import Settings
from server.errors import FieldInvalid, FieldRequired, StageTimeout
from server.media.spool import disk_full_as_error
from server.store.avatars import AvatarStore, StoredAvatar, bundle_too_large

_PIECE_BYTES: Final = 256 * 1024


class AvatarServicer(avatar_pb2_grpc.AvatarServiceServicer):
    """See avatar.proto.

    Args:
        settings: Limits and deadlines.
        avatars: The store.
        scratch: Directory for bundles on their way in or out.
    """

    def __init__(self, *, settings: Settings, avatars: AvatarStore, scratch: Path) -> None:
        self._settings = settings
        self._avatars = avatars
        self._scratch = scratch

    async def GetAvatar(  # noqa: N802 (named by the proto)
        self, request: avatar_pb2.GetAvatarRequest, context: Context
    ) -> avatar_pb2.Avatar:
        """Returns one avatar."""
        return await asyncio.to_thread(self._message, request.name)

    async def ListAvatars(  # noqa: N802 (named by the proto)
        self, request: avatar_pb2.ListAvatarsRequest, context: Context
    ) -> avatar_pb2.ListAvatarsResponse:
        """Lists the avatars, ordered by name."""
        stored = await asyncio.to_thread(self._avatars.list)
        given, token = page(stored, lambda avatar: avatar.name, request.page_size, request.page_token)
        messages = await asyncio.to_thread(lambda: [_message(avatar) for avatar in given])
        return avatar_pb2.ListAvatarsResponse(avatars=messages, next_page_token=token)

    async def ImportAvatar(  # noqa: N802 (named by the proto)
        self, request_iterator: AsyncIterator[avatar_pb2.ImportAvatarRequest], context: Context
    ) -> avatar_pb2.Avatar:
        """Takes a bundle (.zip) and stores it under a new name."""
        requests = aiter(request_iterator)
        first = await self._next(requests)
        if first is None or first.WhichOneof("payload") != "metadata":
            raise FieldRequired("metadata is required, and must be the first message.", field="metadata")
        identifier = first.metadata.avatar_id
        # A name that is taken is told before the bundle is uploaded.
        await asyncio.to_thread(self._avatars.check_new_name, identifier)
        limit = self._settings.limits.max_bundle_bytes
        with tempfile.NamedTemporaryFile(dir=self._scratch, prefix="import-", suffix=".zip") as file:
            size = 0
            while (request := await self._next(requests)) is not None:
                if request.WhichOneof("payload") != "data":
                    raise FieldInvalid("metadata may be sent only once.", field="metadata")
                size += len(request.data)
                if size > limit:
                    raise bundle_too_large(limit)
                with disk_full_as_error():
                    await asyncio.to_thread(file.write, request.data)
            with disk_full_as_error():
                file.flush()
            stored = await asyncio.to_thread(self._avatars.import_zip, Path(file.name), identifier)
        return await asyncio.to_thread(_message, stored)

    async def ExportAvatar(  # noqa: N802 (named by the proto)
        self, request: avatar_pb2.ExportAvatarRequest, context: Context
    ) -> AsyncIterator[avatar_pb2.ExportAvatarResponse]:
        """Gives an avatar as a bundle (.zip)."""
        with tempfile.NamedTemporaryFile(dir=self._scratch, prefix="export-", suffix=".zip") as file:
            await asyncio.to_thread(self._avatars.export_zip, request.name, Path(file.name))
            while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                yield avatar_pb2.ExportAvatarResponse(data=piece)

    async def DeleteAvatar(  # noqa: N802 (named by the proto)
        self, request: avatar_pb2.DeleteAvatarRequest, context: Context
    ) -> Empty:
        """Deletes an avatar."""
        await asyncio.to_thread(self._avatars.delete, request.name)
        return Empty()

    def _message(self, name: str) -> avatar_pb2.Avatar:
        return _message(self._avatars.get(name))

    async def _next(
        self, requests: AsyncIterator[avatar_pb2.ImportAvatarRequest]
    ) -> avatar_pb2.ImportAvatarRequest | None:
        seconds = self._settings.deadlines.upload
        try:
            async with asyncio.timeout(seconds):
                return await anext(requests, None)
        except TimeoutError:
            raise StageTimeout(
                f"Nothing arrived for {seconds:g} s, and the upload had not ended.", stage="upload"
            ) from None


def _message(avatar: StoredAvatar) -> avatar_pb2.Avatar:
    info = avatar.info
    created = Timestamp()
    created.FromDatetime(avatar.created)
    return avatar_pb2.Avatar(
        name=avatar.name,
        display_name=info.display_name,
        description=info.description,
        synthetic=info.synthetic,
        width=info.width,
        height=info.height,
        fps=info.fps,
        audio_encoder=info.audio_encoder,
        gaussian_count=info.gaussian_count,
        size_bytes=avatar.size_bytes,
        license=info.license,
        create_time=created,
        thumbnail=avatar.thumbnail(),
        default_voice=info.default_voice,
    )
