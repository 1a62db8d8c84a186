"""Everything that can go wrong on the server, as one tree.

::

    VisemeError                      INTERNAL             INTERNAL
    ├── InvalidInputError            INVALID_ARGUMENT     FIELD_INVALID
    │   ├── FieldRequired            INVALID_ARGUMENT     FIELD_REQUIRED
    │   ├── FieldInvalid             INVALID_ARGUMENT     FIELD_INVALID
    │   ├── RequestIdReused          INVALID_ARGUMENT     REQUEST_ID_REUSED
    │   ├── AudioError               INVALID_ARGUMENT     AUDIO_UNREADABLE
    │   │   ├── AudioEmpty           INVALID_ARGUMENT     AUDIO_EMPTY
    │   │   ├── AudioUnreadable      INVALID_ARGUMENT     AUDIO_UNREADABLE
    │   │   ├── AudioNotFound        INVALID_ARGUMENT     AUDIO_NOT_FOUND
    │   │   ├── AudioTruncated       INVALID_ARGUMENT     AUDIO_TRUNCATED
    │   │   ├── AudioTooLong         INVALID_ARGUMENT     AUDIO_TOO_LONG
    │   │   ├── AudioTooLarge        INVALID_ARGUMENT     AUDIO_TOO_LARGE
    │   │   └── AudioSilent          INVALID_ARGUMENT     AUDIO_SILENT
    │   ├── VideoError               INVALID_ARGUMENT     VIDEO_UNREADABLE
    │   │   ├── VideoEmpty           INVALID_ARGUMENT     VIDEO_EMPTY
    │   │   ├── VideoUnreadable      INVALID_ARGUMENT     VIDEO_UNREADABLE
    │   │   ├── VideoTruncated       INVALID_ARGUMENT     VIDEO_TRUNCATED
    │   │   ├── VideoTooLarge        INVALID_ARGUMENT     VIDEO_TOO_LARGE
    │   │   └── ClipRefused          INVALID_ARGUMENT     CLIP_REFUSED
    │   ├── BundleInvalid            INVALID_ARGUMENT     BUNDLE_INVALID
    │   └── PathOutsideStore         INVALID_ARGUMENT     PATH_OUTSIDE_STORE
    ├── NotFoundError                NOT_FOUND            AVATAR_NOT_FOUND
    │   ├── AvatarNotFound           NOT_FOUND            AVATAR_NOT_FOUND
    │   ├── VoiceNotFound            NOT_FOUND            VOICE_NOT_FOUND
    │   ├── OperationNotFound        NOT_FOUND            OPERATION_NOT_FOUND
    │   ├── PreviewNotFound          NOT_FOUND            PREVIEW_NOT_FOUND
    │   ├── HostNotFound             NOT_FOUND            HOST_NOT_FOUND
    │   └── BlobNotFound             NOT_FOUND            BLOB_NOT_FOUND
    ├── AvatarExists                 ALREADY_EXISTS       AVATAR_EXISTS
    ├── PreconditionError            FAILED_PRECONDITION  CONFIG_INVALID
    │   ├── ConfigInvalid            FAILED_PRECONDITION  CONFIG_INVALID
    │   ├── PortInUse                FAILED_PRECONDITION  PORT_IN_USE
    │   ├── AssetMissing             FAILED_PRECONDITION  ASSET_MISSING
    │   ├── AssetCorrupt             FAILED_PRECONDITION  ASSET_CORRUPT
    │   ├── EnvironmentFailed        FAILED_PRECONDITION  ENVIRONMENT_FAILED
    │   ├── AvatarBusy               FAILED_PRECONDITION  AVATAR_BUSY
    │   ├── AvatarNotReady           FAILED_PRECONDITION  AVATAR_NOT_READY
    │   ├── OperationUnfinished      FAILED_PRECONDITION  OPERATION_UNFINISHED
    │   ├── OperationSucceeded       FAILED_PRECONDITION  OPERATION_SUCCEEDED
    │   ├── DeviceUnsuitable         FAILED_PRECONDITION  DEVICE_UNSUITABLE
    │   ├── TrainingDiverged         FAILED_PRECONDITION  TRAINING_DIVERGED
    │   ├── NoNodeFits               FAILED_PRECONDITION  NO_NODE_FITS
    │   ├── BlobsRefused             FAILED_PRECONDITION  BLOBS_REFUSED
    │   ├── BlobDamaged              FAILED_PRECONDITION  BLOB_DAMAGED
    │   ├── BlobSuperseded           FAILED_PRECONDITION  BLOB_SUPERSEDED
    │   └── UpstreamFailed           FAILED_PRECONDITION  UPSTREAM_FAILED
    ├── ExhaustedError               RESOURCE_EXHAUSTED   SERVER_BUSY
    │   ├── DiskFull                 RESOURCE_EXHAUSTED   DISK_FULL
    │   └── ServerBusy (retryable)   RESOURCE_EXHAUSTED   SERVER_BUSY
    ├── UnavailableError (retryable) UNAVAILABLE          HOST_LOST
    │   ├── HostLost                 UNAVAILABLE          HOST_LOST
    │   ├── HostNotStarted           UNAVAILABLE          HOST_NOT_STARTED
    │   ├── StoreUnavailable         UNAVAILABLE          STORE_UNAVAILABLE
    │   ├── AssetUnreachable         UNAVAILABLE          ASSET_UNREACHABLE
    │   ├── LlmUnavailable           UNAVAILABLE          LLM_UNAVAILABLE
    │   ├── ClusterUnreachable       UNAVAILABLE          CLUSTER_UNREACHABLE
    │   ├── BlobsUnreachable         UNAVAILABLE          BLOBS_UNREACHABLE
    │   └── ServerStopping           UNAVAILABLE          SERVER_STOPPING
    ├── OperationCancelled           CANCELLED            OPERATION_CANCELLED
    ├── StageTimeout (retryable)     DEADLINE_EXCEEDED    STAGE_TIMEOUT
    └── InternalError                INTERNAL             INTERNAL

Columns: class, gRPC status, ErrorInfo reason. A class's docstring is its default message: one sentence that
says what was wrong. `fix` is a command or an action that puts it right. A caller may repeat a retryable
request as it is.
"""

# ruff: noqa: N818 (a leaf is named after what happened, as its reason is: HOST_LOST is HostLost)

from __future__ import annotations

import inspect
from typing import ClassVar, Final

import grpc

DOMAIN: Final = "viseme"
"""Domain of every ErrorInfo that viseme sends."""


class VisemeError(Exception):
    """Something went wrong inside viseme.

    Attributes:
        status: gRPC status the caller sees.
        reason: UPPER_SNAKE reason of the ErrorInfo (AIP-193).
        retryable: Whether the very same request may succeed a little later.
        message: One sentence for the person who reads it.
        fix: A command or an action that puts it right, or None.
        metadata: Further facts for the ErrorInfo; never contents of what users said or keys.
    """

    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, *, fix: str | None = None, **metadata: str) -> None:
        self.message = message or inspect.cleandoc(self.__doc__ or "").partition("\n")[0]
        self.fix = fix
        self.metadata = metadata
        super().__init__(self.message)

    def info(self) -> dict[str, str]:
        """Metadata of the ErrorInfo: `metadata`, and `fix` when there is one."""
        return {**self.metadata, **({"fix": self.fix} if self.fix else {})}


class InvalidInputError(VisemeError):
    """The request is not valid."""

    status = grpc.StatusCode.INVALID_ARGUMENT
    reason = "FIELD_INVALID"


class FieldRequired(InvalidInputError):
    """A field that is required is empty."""

    reason = "FIELD_REQUIRED"


class FieldInvalid(InvalidInputError):
    """A field has a value that is not allowed."""

    reason = "FIELD_INVALID"


class RequestIdReused(InvalidInputError):
    """This request_id came with a different request before; use a new one for a new request."""

    reason = "REQUEST_ID_REUSED"


class AudioError(InvalidInputError):
    """The audio cannot be used."""

    reason = "AUDIO_UNREADABLE"


class AudioEmpty(AudioError):
    """The audio is empty."""

    reason = "AUDIO_EMPTY"


class AudioUnreadable(AudioError):
    """The file is not audio in a format that can be read."""

    reason = "AUDIO_UNREADABLE"


class AudioNotFound(AudioError):
    """The file has no sound track."""

    reason = "AUDIO_NOT_FOUND"


class AudioTruncated(AudioError):
    """The audio file is cut off."""

    reason = "AUDIO_TRUNCATED"


class AudioTooLong(AudioError):
    """The audio is too long."""

    reason = "AUDIO_TOO_LONG"


class AudioTooLarge(AudioError):
    """The audio file is too large."""

    reason = "AUDIO_TOO_LARGE"


class AudioSilent(AudioError):
    """Nobody speaks in the audio."""

    reason = "AUDIO_SILENT"


class VideoError(InvalidInputError):
    """The video cannot be used."""

    reason = "VIDEO_UNREADABLE"


class VideoEmpty(VideoError):
    """The video is empty."""

    reason = "VIDEO_EMPTY"


class VideoUnreadable(VideoError):
    """The file is not a video in a format that can be read."""

    reason = "VIDEO_UNREADABLE"


class VideoTruncated(VideoError):
    """The video did not arrive whole."""

    reason = "VIDEO_TRUNCATED"


class VideoTooLarge(VideoError):
    """The video file is too large."""

    reason = "VIDEO_TOO_LARGE"


class ClipRefused(VideoError):
    """No avatar can be made of this video."""

    reason = "CLIP_REFUSED"


class BundleInvalid(InvalidInputError):
    """The avatar bundle is not valid."""

    reason = "BUNDLE_INVALID"


class PathOutsideStore(InvalidInputError):
    """The path leads outside the store."""

    reason = "PATH_OUTSIDE_STORE"


class NotFoundError(VisemeError):
    """What was asked for does not exist."""

    status = grpc.StatusCode.NOT_FOUND
    reason = "AVATAR_NOT_FOUND"


class AvatarNotFound(NotFoundError):
    """There is no such avatar."""

    reason = "AVATAR_NOT_FOUND"


class VoiceNotFound(NotFoundError):
    """There is no such voice."""

    reason = "VOICE_NOT_FOUND"


class OperationNotFound(NotFoundError):
    """There is no such operation."""

    reason = "OPERATION_NOT_FOUND"


class PreviewNotFound(NotFoundError):
    """There is no picture of this avatar yet."""

    reason = "PREVIEW_NOT_FOUND"


class HostNotFound(NotFoundError):
    """There is no such model host."""

    reason = "HOST_NOT_FOUND"


class BlobNotFound(NotFoundError):
    """There is no such object in the blob store."""

    reason = "BLOB_NOT_FOUND"


class AvatarExists(VisemeError):
    """An avatar of this name exists already."""

    status = grpc.StatusCode.ALREADY_EXISTS
    reason = "AVATAR_EXISTS"


class PreconditionError(VisemeError):
    """Something has to be put right before this can work."""

    status = grpc.StatusCode.FAILED_PRECONDITION
    reason = "CONFIG_INVALID"


class ConfigInvalid(PreconditionError):
    """The configuration is not valid."""

    reason = "CONFIG_INVALID"


class PortInUse(PreconditionError):
    """The port is in use by another program."""

    reason = "PORT_IN_USE"


class AssetMissing(PreconditionError):
    """A model file that this needs is not installed."""

    reason = "ASSET_MISSING"


class AssetCorrupt(PreconditionError):
    """A model file does not have the contents it should have."""

    reason = "ASSET_CORRUPT"


class EnvironmentFailed(PreconditionError):
    """The environment of a model host could not be built."""

    reason = "ENVIRONMENT_FAILED"


class AvatarBusy(PreconditionError):
    """Another operation is under way on this avatar."""

    reason = "AVATAR_BUSY"


class AvatarNotReady(PreconditionError):
    """This avatar has not been trained yet."""

    reason = "AVATAR_NOT_READY"


class OperationUnfinished(PreconditionError):
    """The operation is still under way."""

    reason = "OPERATION_UNFINISHED"


class OperationSucceeded(PreconditionError):
    """The operation did what it should; there is nothing to try again."""

    reason = "OPERATION_SUCCEEDED"


class DeviceUnsuitable(PreconditionError):
    """The device cannot train this avatar."""

    reason = "DEVICE_UNSUITABLE"


class TrainingDiverged(PreconditionError):
    """The training ran away again and again."""

    reason = "TRAINING_DIVERGED"


class NoNodeFits(PreconditionError):
    """No node of the cluster has what a model host needs."""

    reason = "NO_NODE_FITS"


class BlobsRefused(PreconditionError):
    """The blob store does not let us in."""

    reason = "BLOBS_REFUSED"


class BlobDamaged(PreconditionError):
    """Something in the blob store is not what was stored."""

    reason = "BLOB_DAMAGED"


class BlobSuperseded(PreconditionError):
    """Another one has taken over what was being stored in the blob store."""

    reason = "BLOB_SUPERSEDED"


class UpstreamFailed(PreconditionError):
    """A script of the original TalkingGaussian failed."""

    reason = "UPSTREAM_FAILED"


class ExhaustedError(VisemeError):
    """Something has run out."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "SERVER_BUSY"


class DiskFull(ExhaustedError):
    """The disk is full."""

    reason = "DISK_FULL"


class ServerBusy(ExhaustedError):
    """The server has as much to do as it can; try again in a moment."""

    reason = "SERVER_BUSY"
    retryable = True


class UnavailableError(VisemeError):
    """Something that is needed is not there at the moment."""

    status = grpc.StatusCode.UNAVAILABLE
    reason = "HOST_LOST"
    retryable = True


class HostLost(UnavailableError):
    """A model host died during the request; it is being started again, so try again."""

    reason = "HOST_LOST"


class HostNotStarted(UnavailableError):
    """A model host does not start."""

    reason = "HOST_NOT_STARTED"


class StoreUnavailable(UnavailableError):
    """The database of operations does not answer; what was accepted is kept, so try again."""

    reason = "STORE_UNAVAILABLE"


class AssetUnreachable(UnavailableError):
    """None of the sources of a model file can be reached."""

    reason = "ASSET_UNREACHABLE"


class LlmUnavailable(UnavailableError):
    """No language model answers."""

    reason = "LLM_UNAVAILABLE"


class ClusterUnreachable(UnavailableError):
    """The cluster cannot be reached."""

    reason = "CLUSTER_UNREACHABLE"


class BlobsUnreachable(UnavailableError):
    """The blob store cannot be reached."""

    reason = "BLOBS_UNREACHABLE"


class ServerStopping(UnavailableError):
    """The server is stopping."""

    reason = "SERVER_STOPPING"


class OperationCancelled(VisemeError):
    """The operation was cancelled."""

    status = grpc.StatusCode.CANCELLED
    reason = "OPERATION_CANCELLED"


class StageTimeout(VisemeError):
    """A stage of the request took too long."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "STAGE_TIMEOUT"
    retryable = True


class InternalError(VisemeError):
    """Something went wrong inside viseme; the log says more."""

    status = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"


def error_for_reason(reason: str) -> type[VisemeError] | None:
    """The most specific class with this reason, or None when no class has it."""

    def leaves(kind: type[VisemeError]) -> list[type[VisemeError]]:
        below = kind.__subclasses__()
        return [leaf for child in below for leaf in leaves(child)] if below else [kind]

    return next((leaf for leaf in leaves(VisemeError) if leaf.reason == reason), None)
