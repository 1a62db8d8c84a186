"""What each call needs, in one table. A call that is not in it is refused to everyone who needs a token."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """What a token allows."""

    TALK = "talk"
    """Talking with avatars."""
    RENDER = "render"
    """Having avatars drawn that speak given audio."""
    TRAIN = "train"
    """Making, storing, taking away and deleting avatars."""
    ADMIN = "admin"
    """Seeing and steering the server itself; for its operator only."""


OPEN: Final[frozenset[Scope]] = frozenset()
"""Needs no token: a load balancer asks for the health."""
ANY: Final = frozenset(Scope)
"""Needs a token, whatever it is for."""

_SEE: Final = frozenset({Scope.TALK, Scope.RENDER, Scope.TRAIN})
_MAKE: Final = frozenset({Scope.TRAIN})
_OPERATE: Final = frozenset({Scope.ADMIN})

NEEDED: Final[Mapping[str, frozenset[Scope]]] = {
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/List": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": ANY,
    "/viseme.v1.DialogueService/Reply": frozenset({Scope.TALK}),
    "/viseme.v1.RenderService/StreamRender": frozenset({Scope.RENDER}),
    "/viseme.v1.AvatarService/GetAvatar": _SEE,
    "/viseme.v1.AvatarService/ListAvatars": _SEE,
    "/viseme.v1.AvatarService/ImportAvatar": _MAKE,
    "/viseme.v1.AvatarService/ExportAvatar": _MAKE,
    "/viseme.v1.AvatarService/DeleteAvatar": _MAKE,
    "/viseme.v1.AvatarService/CreateAvatar": _MAKE,
    "/viseme.v1.AvatarService/TrainAvatar": _MAKE,
    "/viseme.v1.AvatarService/GetAvatarPreview": _MAKE,
    "/google.longrunning.Operations/GetOperation": _MAKE,
    "/google.longrunning.Operations/ListOperations": _MAKE,
    "/google.longrunning.Operations/CancelOperation": _MAKE,
    "/google.longrunning.Operations/WaitOperation": _MAKE,
    "/google.longrunning.Operations/DeleteOperation": _MAKE,
    "/viseme.v1.JobService/RetryOperation": _MAKE,
    "/viseme.v1.JobService/GetOperationLog": _MAKE,
    "/viseme.v1.AdminService/GetStatus": _OPERATE,
    "/viseme.v1.AdminService/ListHosts": _OPERATE,
    "/viseme.v1.AdminService/RestartHost": _OPERATE,
    "/viseme.v1.AdminService/GetHostLog": _OPERATE,
    "/viseme.v1.AdminService/ListGpus": _OPERATE,
    "/viseme.v1.AdminService/ListLeases": _OPERATE,
    "/viseme.v1.AdminService/DrainGpu": _OPERATE,
}
"""For each call the scopes of which one is enough."""
