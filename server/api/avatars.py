"""`viseme.v1.AvatarService`: avatars as stored, exchanged and made."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from google.protobuf.empty_pb2 import Empty
from viseme.v1 import avatar_pb2, avatar_pb2_grpc

from server.api.interceptors import Context
from server.api.operations import operation_message
from server.api.pages import page
from server.api.pieces import Pieces
from server.config import Settings
from server.errors import (
    AvatarNotFound,
    FieldInvalid,
    FieldRequired,
    PreviewNotFound,
    VideoEmpty,
    VideoTooLarge,
    VideoTruncated,
    VisemeError,
)
from server.operations import avatar_work
from server.operations.avatar_view import AvatarView
from server.operations.desk import OperationDesk
from server.operations.workplace import Workplaces
from server.store.avatars import AvatarStore, bundle_too_large
from server.store.paths import parse_resource_name, quoted
from server.store.recordings import About, RecordingStore, consent_now

_PIECE_BYTES: Final = 256 * 1024
_SIZES: Final = (256, 512)
_PRESETS: Final = ("", "quick", "person", "laptop")
Metadata = avatar_pb2.AvatarOperationMetadata


class AvatarServicer(avatar_pb2_grpc.AvatarServiceServicer):
    """See avatar.proto.

    Args:
        settings: Limits and deadlines.
        avatars: Avatars that can be rendered.
        recordings: What avatars are made of.
        desk: Accepts operations.
        scratch: Directory for bundles on their way in or out.
        workplaces: What the blob store holds of avatars.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        avatars: AvatarStore,
        recordings: RecordingStore,
        desk: OperationDesk,
        scratch: Path,
        workplaces: Workplaces,
    ) -> None:
        self._settings = settings
        self._avatars = avatars
        self._recordings = recordings
        self._view = AvatarView(avatars, recordings)
        self._desk = desk
        self._scratch = scratch
        self._workplaces = workplaces

    async def GetAvatar(  # noqa: N802 (named by the proto)
        self, request: avatar_pb2.GetAvatarRequest, context: Context
    ) -> avatar_pb2.Avatar:
        """Returns one avatar."""
        return await asyncio.to_thread(self._message, request.name)

    async def ListAvatars(  # noqa: N802 (named by the proto)
        self, request: avatar_pb2.ListAvatarsRequest, context: Context
    ) -> avatar_pb2.ListAvatarsResponse:
        """Lists the avatars, ordered by name."""
        names = await asyncio.to_thread(self._view.names)
        given, token = page(names, str, request.page_size, request.page_token)
        messages = await asyncio.to_thread(lambda: [self._message(name) for name in given])
        return avatar_pb2.ListAvatarsResponse(avatars=messages, next_page_token=token)

    async def ImportAvatar(  # noqa: N802 (named by the proto)
        self, request_iterator: AsyncIterator[avatar_pb2.ImportAvatarRequest], context: Context
    ) -> avatar_pb2.Avatar:
        """Takes a bundle (.zip) and stores it under a new name."""
        pieces = Pieces(request_iterator, self._settings.deadlines.upload)
        metadata = await pieces.metadata()
        # A name that is taken is told before the bundle is uploaded.
        await asyncio.to_thread(self._check_new_name, metadata.avatar_id)
        limit = self._settings.limits.max_bundle_bytes
        with tempfile.NamedTemporaryFile(dir=self._scratch, prefix="import-", suffix=".zip") as file:
            await pieces.save(file, limit, bundle_too_large(limit))
            stored = await asyncio.to_thread(self._avatars.import_zip, Path(file.name), metadata.avatar_id)
        try:
            await self._workplaces.keep_bundle(stored)
        except VisemeError:
            await asyncio.to_thread(self._avatars.delete, stored.name)
            raise
        return await asyncio.to_thread(self._message, stored.name)

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
        """Deletes an avatar, its recording and what is being done to it."""
        await self._desk.cancel_on(request.name)
        identifier = parse_resource_name(request.name, "avatars").id
        await self._workplaces.forget(self._avatars, identifier)
        recorded = await asyncio.to_thread(self._recordings.delete, identifier)
        try:
            await asyncio.to_thread(self._avatars.delete, request.name)
        except AvatarNotFound:
            if not recorded:
                raise
        return Empty()

    async def CreateAvatar(  # noqa: N802 (named by the proto)
        self, request_iterator: AsyncIterator[avatar_pb2.CreateAvatarRequest], context: Context
    ) -> Any:
        """Takes a video of a person and prepares it for training."""
        pieces = Pieces(request_iterator, self._settings.deadlines.upload)
        metadata = await pieces.metadata()
        name = str(parse_resource_name(f"avatars/{metadata.avatar_id}", "avatars"))
        if known := await self._desk.known(avatar_work.CREATE, metadata, metadata.request_id):
            return operation_message(known)
        self._check_creation(metadata)
        replace = await asyncio.to_thread(self._may_replace, name)
        limit = self._settings.limits.max_video_bytes
        # Without waiting: a caller who goes away meanwhile must leave nothing.
        incoming = self._recordings.incoming()
        try:
            with (incoming / "video").open("wb") as file:
                too_large = VideoTooLarge(
                    f"The video is too large; at most {limit // 1024**2} MiB are accepted.",
                    fix="Send a shorter one: half a minute to five minutes are best.",
                )
                size = await pieces.save(file, limit, too_large)
            if not size:
                raise VideoEmpty(fix="Send the file that the camera wrote.")
            # A caller who goes away ends the pieces, and only then the call.
            if metadata.video_size_bytes and size != metadata.video_size_bytes:
                raise VideoTruncated(
                    f"Of {metadata.video_size_bytes} bytes of video {size} arrived.", fix="Send it again."
                )
            about = About(
                display_name=metadata.display_name or metadata.avatar_id,
                file_name=metadata.file_name,
                size=metadata.size or _SIZES[-1],
                default_voice=metadata.default_voice,
                consent_time=consent_now(),
            )
            place = self._recordings.place
            await asyncio.to_thread(place, incoming, metadata.avatar_id, about, replace=replace)
        finally:
            await asyncio.to_thread(shutil.rmtree, incoming, ignore_errors=True)
        progress = Metadata(avatar=name, task=Metadata.TASK_PREPARE)
        return operation_message(
            await self._desk.accept(avatar_work.CREATE, name, metadata, progress, metadata.request_id)
        )

    async def TrainAvatar(  # noqa: N802 (named by the proto)
        self, request: avatar_pb2.TrainAvatarRequest, context: Context
    ) -> Any:
        """Trains an avatar from its recording."""
        if not request.name:
            raise FieldRequired("name is required.", field="name")
        identifier = parse_resource_name(request.name, "avatars").id
        _check_training(request)
        recording = await asyncio.to_thread(self._recordings.get, identifier)
        if recording is None:
            await asyncio.to_thread(self._avatars.get, request.name)
            raise AvatarNotFound(
                f"{request.name} has no recording that it could be trained from.",
                fix="viseme avatars create NAME --video FILE",
                avatar=request.name,
            )
        if not recording.usable:
            await self._desk.check_free(request.name)
            raise FieldInvalid(
                f"The recording of {request.name} is not prepared; no avatar can be trained from it.",
                fix=f"viseme avatars show {request.name}",
                field="name",
            )
        progress = Metadata(avatar=request.name, task=Metadata.TASK_TRAIN)
        return operation_message(
            await self._desk.accept(avatar_work.TRAIN, request.name, request, progress, request.request_id)
        )

    async def GetAvatarPreview(  # noqa: N802 (named by the proto)
        self, request: avatar_pb2.GetAvatarPreviewRequest, context: Context
    ) -> avatar_pb2.AvatarPreview:
        """Returns the latest picture of an avatar in the making."""
        identifier = parse_resource_name(request.name, "avatars").id
        recording = await asyncio.to_thread(self._recordings.get, identifier)
        picture = None if recording is None else await asyncio.to_thread(recording.latest_picture)
        if picture is None:
            raise PreviewNotFound(f"There is no picture of {request.name} yet.", avatar=request.name)
        preview = avatar_pb2.AvatarPreview(image=await asyncio.to_thread(picture.read_bytes))
        preview.create_time.FromNanoseconds(picture.stat().st_mtime_ns)
        return preview

    def _message(self, name: str) -> avatar_pb2.Avatar:
        return self._view.message(name, self._desk.latest(name))

    def _check_new_name(self, identifier: str) -> None:
        name = str(self._avatars.check_new_name(identifier))
        self._may_replace(name)

    def _may_replace(self, name: str) -> bool:
        """Whether the recording of this name failed, so that another may take its place.

        Raises:
            AvatarExists: There is an avatar, or a recording that is of use.
        """
        identifier = parse_resource_name(name, "avatars").id
        self._avatars.check_new_name(identifier)
        if self._recordings.get(identifier) is None:
            return False
        return self._message(name).state == avatar_pb2.Avatar.STATE_FAILED

    def _check_creation(self, metadata: avatar_pb2.CreateAvatarRequest.Metadata) -> None:
        if metadata.size not in {0, *_SIZES}:
            raise FieldInvalid(f"size must be 256 or 512, not {metadata.size}.", field="metadata.size")
        if metadata.default_voice:
            parse_resource_name(metadata.default_voice, "voices")
        _check_training(metadata.training)


def _check_training(request: avatar_pb2.TrainAvatarRequest) -> None:
    if request.preset not in _PRESETS:
        raise FieldInvalid(
            f"There is no preset {quoted(request.preset)}.",
            fix="Use quick, person or laptop.",
            field="preset",
        )
