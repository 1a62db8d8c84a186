"""Removes what nobody needs any more: environments of other locks, half-built ones, old logs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from server.errors import EnvironmentFailed
from server.hosts.environment_files import MARKER, build_lock, complete, try_lock, use_lock
from server.hosts.environments import EnvironmentBuilder
from server.hosts.manifest import HostManifest

_DAY: Final = 24 * 3600.0


class Kind(Enum):
    """What something that may be removed is."""

    ENVIRONMENT = "environment"
    HALF_BUILT = "half-built environment"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Found:
    """Something that nobody needs.

    Attributes:
        path: Where it is.
        kind: What it is.
        why: Why it stays, when it does; else empty.
    """

    path: Path
    kind: Kind
    why: str = ""


@dataclass(slots=True)
class Pruned:
    """What a pruning did.

    Attributes:
        removed: What has gone, or would go.
        kept: What nobody needs and stays all the same.
        freed_bytes: Room on the disk that is free now, or would be.
    """

    removed: list[Found] = field(default_factory=list)
    kept: list[Found] = field(default_factory=list)
    freed_bytes: int = 0


def prune(
    home: Path,
    manifests: Mapping[str, HostManifest],
    builder: EnvironmentBuilder,
    *,
    days: float = 14,
    dry_run: bool = False,
) -> Pruned:
    """Removes what nobody needs. Blocks.

    An environment in which a host runs, or that is being built, stays: both hold its locks. When no Python is
    found for a host, all its environments stay, since nobody can tell which is the one.

    Args:
        home: VISEME_HOME.
        manifests: The hosts there are.
        builder: Says which environments they need.
        days: Logs of hosts that are gone, and further files of logs that were full, stay for so long.
        dry_run: Only tell.
    """
    pruned = Pruned()
    links = _Links()
    for found in _environments(manifests, builder):
        if found.why:
            pruned.kept.append(found)
        elif dry_run:
            links.add(found.path)
            pruned.removed.append(found)
        else:
            why = _remove_environment(found.path, links)
            (pruned.kept if why else pruned.removed).append(Found(found.path, found.kind, why))
    for path in _old_logs(home / "logs", manifests, days):
        links.add(path)
        if not dry_run:
            path.unlink(missing_ok=True)
        pruned.removed.append(Found(path, Kind.LOG))
    pruned.freed_bytes = links.freed()
    return pruned


def _environments(manifests: Mapping[str, HostManifest], builder: EnvironmentBuilder) -> Iterator[Found]:
    needed: set[Path] = set()
    unknown: dict[str, str] = {}
    for name, manifest in manifests.items():
        try:
            directory = builder.directory(manifest)
        except EnvironmentFailed as error:
            unknown[name] = error.message
            continue
        if directory is not None:
            needed.add(directory)
    for path in sorted(builder.root.glob("[!.]*-*")):
        if not path.is_dir() or path.is_symlink():
            continue
        host = path.name.rpartition("-")[0]
        done = complete(path) is not None
        if done and path in needed:
            continue
        kind = Kind.ENVIRONMENT if (path / MARKER).exists() else Kind.HALF_BUILT
        yield Found(path, kind, unknown.get(host, "") if done else "")


def _remove_environment(path: Path, links: _Links) -> str:
    """Removes an environment that nobody uses; says why it stays when it does."""
    locks = build_lock(path), use_lock(path)
    held: list[int] = []
    try:
        for lock, who in zip(locks, ("it is being built", "a host runs in it"), strict=True):
            descriptor = try_lock(lock)
            if descriptor is None:
                return who
            held.append(descriptor)
        links.add(path)
        # First of all: what is half removed must not be taken for complete.
        (path / MARKER).unlink(missing_ok=True)
        shutil.rmtree(path)
    except OSError as error:
        links.forget(path)
        return f"it cannot be removed: {error.strerror}"
    else:
        for lock in locks:
            lock.unlink(missing_ok=True)
        return ""
    finally:
        for descriptor in held:
            os.close(descriptor)


def _old_logs(logs: Path, manifests: Mapping[str, HostManifest], days: float) -> Iterator[Path]:
    oldest = time.time() - days * _DAY
    for path in sorted([*(logs / "hosts").glob("*.log*"), *(logs / "environments").glob("*.log*")]):
        current = path.suffix == ".log" and path.stem in manifests
        if not current and path.is_file() and path.stat().st_mtime < oldest:
            yield path


class _Links:
    """Counts the room that goes free: none for a file that others link to as well, as uv's cache does."""

    def __init__(self) -> None:
        self._files: dict[Path, dict[tuple[int, int], tuple[int, int, int]]] = {}

    def add(self, path: Path) -> None:
        files: dict[tuple[int, int], tuple[int, int, int]] = {}
        for one in _walk(path):
            try:
                about = one.lstat()
            except FileNotFoundError:
                continue
            key = (about.st_dev, about.st_ino)
            seen = files.get(key, (0, 0, 0))[0] + 1
            links = 1 if one.is_dir() and not one.is_symlink() else about.st_nlink
            files[key] = (seen, links, about.st_blocks * 512)
        self._files[path] = files

    def forget(self, path: Path) -> None:
        self._files.pop(path, None)

    def freed(self) -> int:
        total: dict[tuple[int, int], int] = {}
        size: dict[tuple[int, int], tuple[int, int]] = {}
        for files in self._files.values():
            for key, (seen, links, blocks) in files.items():
                total[key] = total.get(key, 0) + seen
                size[key] = (links, blocks)
        return sum(blocks for key, (links, blocks) in size.items() if total[key] >= links)


def _walk(path: Path) -> Iterable[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        yield from path.rglob("*")
