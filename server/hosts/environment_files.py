"""What an environment is on disk: its key, its mark of completeness, the locks that protect it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Written last: an environment without it was never finished.
MARKER: Final = "viseme-environment.json"
_LOCK_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment that is complete.

    Attributes:
        path: Its directory.
        python: Its interpreter.
    """

    path: Path
    python: Path


def environment_key(lock: str, python: tuple[int, int] | str, platform: str) -> str:
    """Twelve hexadecimal digits that change with everything an environment depends on.

    Args:
        lock: Contents of the lock.
        python: Major and minor version; `conda` where the lock names the Python too.
        platform: As `sysconfig.get_platform` says.
    """
    version = python if isinstance(python, str) else f"{python[0]}.{python[1]}"
    return hashlib.sha256("\0".join((lock, version, platform)).encode()).hexdigest()[:12]


def complete(directory: Path) -> Environment | None:
    """The environment in a directory, if it was finished and its interpreter is still there."""
    python = directory / "bin" / "python"
    # The interpreter is a link: it dangles when the Python it was made from has been removed.
    if (directory / MARKER).exists() and python.exists():
        return Environment(directory, python)
    return None


def finish(directory: Path, facts: dict[str, Any]) -> Environment:
    """Marks a directory as a complete environment."""
    fresh = directory / f"{MARKER}.new"
    fresh.write_text(json.dumps(facts), encoding="utf-8")
    fresh.replace(directory / MARKER)
    return Environment(directory, directory / "bin" / "python")


def build_lock(directory: Path) -> Path:
    """Held by who builds or removes the environment."""
    return directory.with_name(f".{directory.name}.lock")


def use_lock(directory: Path) -> Path:
    """Shared by the hosts that run in the environment; held by who removes it."""
    return directory.with_name(f".{directory.name}.used")


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Takes a lock against other tasks and processes, if it is free.

    Returns:
        A descriptor that holds it until it is closed, in every process that has inherited it; else None.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        # Who removed the environment removed the file as well: a lock on that is one that nobody else sees.
        if os.fstat(held).st_ino == path.stat().st_ino:
            return held
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(held)
        raise
    os.close(held)
    return None


@contextlib.asynccontextmanager
async def locked(path: Path, *, shared: bool = False) -> AsyncIterator[int]:
    """Waits for a lock and holds it; yields its file descriptor."""
    while (held := try_lock(path, shared=shared)) is None:  # noqa: ASYNC110
        # Other processes hold it as well; nothing tells of its end.
        await asyncio.sleep(_LOCK_POLL_SECONDS)
    try:
        yield held
    finally:
        os.close(held)
