"""What callers see of an avatar: its bundle, its recording and what is being done to it, as one message."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from viseme.v1 import avatar_pb2

from server.errors import AvatarNotReady
from server.operations.store import OperationRecord
from server.store.avatars import StoredAvatar
from server.store.paths import parse_resource_name
from server.store.recordings import StoredRecording
from server.store.tenants import Stores

Avatar = avatar_pb2.Avatar


class AvatarView:
    """Makes the messages of avatars.

    Args:
        stores: Those that can be rendered, and what they and those that are being made are made of.
    """

    def __init__(self, stores: Stores) -> None:
        self._avatars = stores.avatars
        self._recordings = stores.recordings

    def names(self) -> Sequence[str]:
        """`avatars/ID` of all, in order."""
        ready = {avatar.name for avatar in self._avatars.list()}
        return sorted(ready | {f"avatars/{recording.identifier}" for recording in self._recordings.list()})

    def message(self, name: str, operation: OperationRecord | None, *, done: bool = False) -> Avatar:
        """One avatar.

        Args:
            name: `avatars/ID`.
            operation: The latest operation on it.
            done: Whether that is just ending well.

        Raises:
            AvatarNotFound: There is none of this name.
            BundleInvalid: Its files are damaged.
        """
        recording = self._recordings.get(parse_resource_name(name, "avatars").id)
        stored: StoredAvatar | None = None
        with contextlib.suppress(AvatarNotReady):
            stored = self._avatars.get(name)
        message = Avatar(name=name) if stored is None else _of_bundle(stored)
        if recording is not None:
            _add_recording(message, recording)
        message.state = _state(stored, recording, None if done else operation)
        message.operation = "" if operation is None else operation.name
        return message


def _of_bundle(avatar: StoredAvatar) -> Avatar:
    info = avatar.info
    created = Timestamp()
    created.FromDatetime(avatar.created)
    return Avatar(
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


def _add_recording(message: Avatar, recording: StoredRecording) -> None:
    about = recording.about
    message.display_name = message.display_name or about.display_name
    message.width = message.width or about.size
    message.height = message.height or about.size
    message.fps = message.fps or 25
    message.default_voice = message.default_voice or about.default_voice
    if not message.HasField("create_time"):
        message.create_time.FromJsonString(about.consent_time.replace("+00:00", "Z"))
    for finding in recording.findings or ():
        message.findings.add(
            code=finding.code, message=finding.message, fix=finding.fix, refused=finding.refused
        )


def _state(
    stored: StoredAvatar | None, recording: StoredRecording | None, operation: OperationRecord | None
) -> Avatar.State.ValueType:
    working = operation is not None and operation.state != "done"
    prepared = recording is not None and recording.usable
    if working and operation is not None and (operation.kind == "train" or prepared):
        return Avatar.STATE_TRAINING
    if working:
        return Avatar.STATE_PREPARING
    if stored is not None:
        return Avatar.STATE_READY
    return Avatar.STATE_PREPARED if prepared else Avatar.STATE_FAILED
