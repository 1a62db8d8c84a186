"""One training at a time of the same output."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType


class TrainingBusy(RuntimeError):  # noqa: N818 - reads as a statement, like DatasetInvalid
    """Another process trains the same output; the message names both."""


class TrainingLock:
    """Holds `PATH.lock` while something that belongs to `PATH` is trained.

    The kernel drops the lock when its holder dies, however it dies, so a file that was left does not matter.

    Args:
        path: What is trained: a bundle or a checkpoint.

    Raises:
        TrainingBusy: On entry, if another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._path = path.with_name(path.name + ".lock")
        self._descriptor = -1

    def __enter__(self) -> TrainingLock:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
                os.close(descriptor)
                raise TrainingBusy(
                    f"{self._name} is being trained by process {holder or 'unknown'}; wait for it or stop it"
                ) from error
            if self._is_current(descriptor):
                break
            os.close(descriptor)  # its last holder removed it after we opened it
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False
