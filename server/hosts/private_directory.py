"""Directories of one server process: only its user may look inside, and what a killed one left is removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "viseme-"
_LOCK: Final = "lock"


class PrivateDirectory:
    """A fresh directory of mode 0700 that lives as long as this process, or until it is closed.

    A lock in it, which the system drops with the process, tells the living from the abandoned; making one
    removes the abandoned ones beside it.

    Args:
        parent: Where to make it; made when it does not exist.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        # Locked before it has the name that others look for.
        fresh = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent))
        self._lock = os.open(fresh / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path: Final = fresh.rename(parent / fresh.name[1:])

    def close(self) -> None:
        """Removes the directory with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def runtime_parent() -> Path:
    """Where sockets go: the user's runtime directory, or the one for temporary files.

    A path that would make the sockets' paths longer than the system allows (107 bytes) is passed over.
    """
    for candidate in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir()):
        if candidate and len(os.fsencode(candidate)) <= 40 and os.access(candidate, os.W_OK | os.X_OK):
            return Path(candidate)
    return Path("/tmp")  # noqa: S108 (the directory made in it is private)


def _sweep(parent: Path) -> None:
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError):
            held = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent)
            finally:
                os.close(held)
