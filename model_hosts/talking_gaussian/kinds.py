"""The kinds of avatar bundles: with our own networks (version 1), or the original's (version 2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from model_hosts.talking_gaussian.avatar_info import BundleInvalid
from model_hosts.talking_gaussian.bundle import Bundle
from model_hosts.talking_gaussian.bundle_files import read_files
from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput, Splats
from model_hosts.talking_gaussian.upstream import bundle as upstream
from model_hosts.talking_gaussian.upstream.deformer import UpstreamDeformer

AnyBundle = Bundle | upstream.UpstreamBundle


class AnyDeformer(Protocol):
    """Poses an avatar. Threads share it, each with a workspace of its own."""

    def workspace(self) -> Any:
        """A workspace for one more thread."""
        ...

    def pose(self, frame: FrameInput, workspace: Any) -> Splats:
        """The Gaussians of a frame; they belong to the workspace until its next frame."""
        ...


def read_bundle(path: Path) -> AnyBundle:
    """Reads and checks a bundle directory or .zip of any kind.

    Raises:
        BundleInvalid: It is not there, or is not a valid bundle.
    """
    try:
        files = read_files(path)
        if _version(files["avatar.json"]) == upstream.VERSION:
            return upstream.UpstreamBundle.from_files(files)
        return Bundle.from_files(files)
    except BundleInvalid as error:
        raise BundleInvalid(f"{path.name} is not a usable avatar: {error}") from error


def deformer_of(bundle: AnyBundle) -> AnyDeformer:
    """What poses the avatar of a bundle."""
    return Deformer(bundle) if isinstance(bundle, Bundle) else UpstreamDeformer(bundle)


def _version(text: bytes) -> object:
    """What `avatar.json` says its version is; its reader names whatever is wrong with the file."""
    try:
        raw = json.loads(text)
    except ValueError:
        return None
    return raw.get("version") if isinstance(raw, dict) else None
