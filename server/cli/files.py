"""Files that commands read and write."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from server.cli.failures import CommandError, ExitCode
from server.cli.interrupt import keep, remove_when_interrupted

CHUNK: Final = 64 * 1024


def read_chunks(source: str) -> Iterator[bytes]:
    """A file piece by piece; `-` is standard input. It is opened at once, not on the first piece.

    Raises:
        CommandError: If it cannot be read.
    """
    if source == "-":
        if sys.stdin.isatty():
            raise CommandError(
                "Standard input is a terminal, not a recording.",
                fix="Send one through a pipe, for example: viseme say - -o reply.mp4 < note.ogg",
                code=ExitCode.USAGE,
            )
        return _chunks(sys.stdin.buffer)
    path = Path(source)
    if path.is_dir():
        raise CommandError(f"{source} is a directory, not a recording.", code=ExitCode.REFUSED)
    try:
        return _chunks(path.open("rb"))
    except FileNotFoundError:
        raise CommandError(f"There is no file {source}.", code=ExitCode.NOT_FOUND) from None
    except OSError as error:
        raise CommandError(f"{source} cannot be read: {error.strerror}.", code=ExitCode.REFUSED) from error


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk


class OutputFile:
    """A file that appears under its name when it is complete, and not at all otherwise; a context manager."""

    def __init__(self, path: Path, *, overwrite: bool = True) -> None:
        """Touches nothing yet.

        Args:
            path: Its name.
            overwrite: Whether a file of this name is replaced.
        """
        self._path = path
        self._overwrite = overwrite
        self._part = Path()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> OutputFile:
        """Opens a nameless neighbour, so that a place that cannot be written is found out before the work.

        Raises:
            CommandError: If it cannot be written there.
        """
        if self._path.is_dir():
            raise CommandError(f"{self._path} is a directory.", fix="Name a file.", code=ExitCode.USAGE)
        if not self._path.parent.is_dir():
            raise CommandError(
                f"There is no directory {self._path.parent} to write {self._path.name} to.",
                fix="Make it, or name another place with -o.",
                code=ExitCode.NOT_FOUND,
            )
        if self._path.exists() and not self._overwrite:
            raise CommandError(f"{self._path} exists already.", fix="Name another file, or remove it.")
        try:
            handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        except OSError as error:
            raise CommandError(
                f"{self._path} cannot be written: {error.strerror}.", fix="Name another place with -o."
            ) from error
        self._part = Path(name)
        remove_when_interrupted(self._part)
        self._file = os.fdopen(handle, "wb")
        return self

    def write(self, data: bytes) -> None:
        """Appends.

        Raises:
            CommandError: If the disk is full or fails.
        """
        with self._explained():
            self._opened().write(data)

    def commit(self) -> None:
        """Gives the complete file its name.

        Raises:
            CommandError: If the disk is full or fails.
        """
        with self._explained():
            file = self._opened()
            file.close()
            # mkstemp makes files that only we may read; what the user asked for is an ordinary one.
            mask = os.umask(0)
            os.umask(mask)
            self._part.chmod(0o666 & ~mask)
            self._part.replace(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes what was not committed."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        if self._part.name:
            self._part.unlink(missing_ok=True)
            keep(self._part)

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("the file is not open")
        return self._file

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise CommandError(
                    f"There is no room left on the disk for {self._path}.",
                    fix="Free some space, or name another place with -o.",
                    code=ExitCode.NOT_READY,
                ) from error
            raise CommandError(f"{self._path} cannot be written: {error.strerror}.") from error
