"""Keys of trees in the blob store: what belongs to a tenant has the tenant in its key, as in its path."""

from __future__ import annotations

import hashlib
from pathlib import Path

from server.store.avatars import StoredAvatar
from server.store.paths import parse_resource_name
from server.store.recordings import StoredRecording

_TENANTS = "tenants"


def recording_key(recording: StoredRecording) -> str:
    """Of a prepared recording."""
    return f"{owner(recording.directory.parent)}recordings/{recording.identifier}"


def video_key(recording: StoredRecording) -> str:
    """Of a video on its way to the node that prepares it."""
    return f"{owner(recording.directory.parent)}videos/{recording.identifier}"


def training_key(recording: StoredRecording) -> str:
    """Of the state of a training."""
    # Of this video: what was made of another one under the same name must not be gone on with.
    upload = hashlib.sha256(repr(recording.about).encode()).hexdigest()[:12]
    return f"{owner(recording.directory.parent)}trainings/{recording.identifier}/{upload}"


def bundle_key(avatar: StoredAvatar) -> str:
    """Of the bundle of an avatar."""
    identifier = parse_resource_name(avatar.name, "avatars").id
    if avatar.builtin:
        # Not restored as one that was made or imported.
        return f"builtin/{identifier}"
    return f"{bundles(avatar.directory.parent)}/{identifier}"


def bundles(root: Path) -> str:
    """What the keys of the bundles of a store begin with.

    Args:
        root: Directory of the avatars of the store.
    """
    return f"{owner(root)}bundles"


def everything(root: Path, identifier: str) -> list[str]:
    """What the keys of everything of an avatar begin with.

    Args:
        root: Directory of the avatars of its store.
        identifier: Last segment of its name.
    """
    kinds = ("trainings", "recordings", "videos", "bundles")
    return [f"{owner(root)}{kind}/{identifier}" for kind in kinds]


def owner(root: Path) -> str:
    """What keys begin with: nothing for the operator's, `tenants/T/` for those below a tenant's directory.

    Args:
        root: A directory of the store, such as `store/avatars` or `store/tenants/T/avatars`.
    """
    place = root.parent
    return f"{_TENANTS}/{place.name}/" if place.parent.name == _TENANTS else ""
