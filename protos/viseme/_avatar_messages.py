"""Between the protocol's messages about avatars and the values that clients get."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from google.longrunning import operations_pb2  # type: ignore[import-untyped]

from viseme._errors import from_status
from viseme._messages import moment, resource, seconds
from viseme._types import Avatar, AvatarPreview, Finding, LogLine, Operation
from viseme._uploads import source_bytes
from viseme.v1 import avatar_pb2, job_pb2

_AVATARS = "avatars/"


def import_metadata(avatar_id: str) -> avatar_pb2.ImportAvatarRequest:
    """The first request of an import."""
    metadata = avatar_pb2.ImportAvatarRequest.Metadata(avatar_id=_identifier(avatar_id))
    return avatar_pb2.ImportAvatarRequest(metadata=metadata)


def create_metadata(
    avatar_id: str,
    video: Any,
    *,
    consent: bool,
    display_name: str,
    size: int,
    train: bool,
    preset: str,
    device: str,
    seed: int,
    default_voice: str,
    request_id: str,
) -> avatar_pb2.CreateAvatarRequest:
    """The first request that makes an avatar of a video.

    Raises:
        OSError: There is no file at the path.
        ValueError: It is said how to train, but not to train.
    """
    if not train and (preset or device or seed):
        raise ValueError("preset, device and seed say how to train: give train=True as well.")
    metadata = avatar_pb2.CreateAvatarRequest.Metadata(
        avatar_id=_identifier(avatar_id),
        consent=consent,
        display_name=display_name,
        file_name=Path(video).name if isinstance(video, (str, os.PathLike)) else "",
        size=size,
        train=train,
        training=avatar_pb2.TrainAvatarRequest(preset=preset, device=device, seed=seed) if train else None,
        default_voice=resource("voices", default_voice),
        request_id=request_id_or_new(request_id),
        video_size_bytes=source_bytes(video),
    )
    return avatar_pb2.CreateAvatarRequest(metadata=metadata)


def create_piece(data: bytes) -> avatar_pb2.CreateAvatarRequest:
    """A request with a piece of the video."""
    return avatar_pb2.CreateAvatarRequest(data=data)


def train_request(
    name: str, *, preset: str, device: str, seed: int, request_id: str
) -> avatar_pb2.TrainAvatarRequest:
    """The request that trains an avatar."""
    return avatar_pb2.TrainAvatarRequest(
        name=resource("avatars", name),
        preset=preset,
        device=device,
        seed=seed,
        request_id=request_id_or_new(request_id),
    )


def avatar_value(message: avatar_pb2.Avatar) -> Avatar:
    """An avatar."""
    return Avatar(
        name=message.name,
        display_name=message.display_name,
        description=message.description,
        synthetic=message.synthetic,
        width=message.width,
        height=message.height,
        fps=message.fps,
        audio_encoder=message.audio_encoder,
        gaussian_count=message.gaussian_count,
        size_bytes=message.size_bytes,
        license=message.license,
        create_time=moment(message.create_time),
        default_voice=message.default_voice,
        thumbnail=message.thumbnail,
        state=avatar_pb2.Avatar.State.Name(message.state).replace("STATE_", "", 1),
        operation=message.operation,
        findings=tuple(
            Finding(finding.code, finding.message, finding.fix, finding.refused)
            for finding in message.findings
        ),
    )


def preview_value(message: avatar_pb2.AvatarPreview) -> AvatarPreview:
    """A picture of an avatar in the making."""
    return AvatarPreview(message.image, moment(message.create_time))


def operation_value(message: operations_pb2.Operation) -> Operation:
    """Work on an avatar."""
    about = avatar_pb2.AvatarOperationMetadata()
    message.metadata.Unpack(about)
    outcome = message.WhichOneof("result")
    avatar = avatar_pb2.Avatar()
    made = outcome == "response" and message.response.Unpack(avatar)
    task = avatar_pb2.AvatarOperationMetadata.Task.Name(about.task).replace("TASK_", "", 1).lower()
    return Operation(
        name=message.name,
        done=message.done,
        error=from_status(message.error) if outcome == "error" else None,
        avatar=avatar_value(avatar) if made else None,
        avatar_name=about.avatar,
        task=task,
        stage=about.stage,
        step=about.step,
        steps=about.steps,
        fraction=about.fraction,
        remaining=seconds(about.remaining) if about.HasField("remaining") else None,
        loss=about.loss or None,
        psnr=about.psnr or None,
        device=about.device,
        message=about.message,
        attempt=about.attempt,
        create_time=moment(about.create_time),
        start_time=moment(about.start_time) if about.HasField("start_time") else None,
    )


def _identifier(avatar_id: str) -> str:
    # Nothing else is cut off: the server refuses what is no name.
    return avatar_id[len(_AVATARS) :] if avatar_id.startswith(_AVATARS) else avatar_id


def log_line_value(message: job_pb2.GetOperationLogResponse.Line) -> LogLine:
    """A line of the log of an operation."""
    return LogLine(moment(message.time), message.text)


def request_id_or_new(request_id: str) -> str:
    """The caller's id of a request, or a new one: a call that is repeated by gRPC is one request."""
    return request_id or str(uuid.uuid4())
