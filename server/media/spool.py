"""Uploads on their way to disk: a file without a name and with a limit."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterable
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import av

from server.errors import AudioTooLarge, DiskFull

if TYPE_CHECKING:
    from collections.abc import Iterator


class Spool:
    """A bounded temporary file.

    It has no name, so nothing is left of it when it is closed or the process dies.
    """

    def __init__(self, directory: Path | None, max_bytes: int) -> None:
        """Opens the file.

        Args:
            directory: Where to put it, the store's `tmp`; None means the system's directory for such files.
            max_bytes: Most bytes accepted.

        Raises:
            DiskFull: If there is no room for a file.
        """
        self._max_bytes = max_bytes
        self.size = 0
        with disk_full_as_error():
            if directory is not None:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 (closed by close)

    def fileno(self) -> int:
        """Descriptor of the file."""
        return self._file.fileno()

    def write(self, data: bytes) -> None:
        """Appends.

        Raises:
            AudioTooLarge: If the limit would be passed.
            DiskFull: If the disk is full.
        """
        self.size += len(data)
        if self.size > self._max_bytes:
            raise too_large(None, self._max_bytes)
        view = memoryview(data)
        with disk_full_as_error():
            while view:
                view = view[self._file.write(view) :]

    async def fill(self, chunks: AsyncIterable[bytes]) -> None:
        """Appends a stream, as it arrives, off the event loop.

        Raises:
            AudioTooLarge: As soon as the limit is passed; the rest of the stream is not read.
            DiskFull: If the disk is full.
        """
        async for chunk in chunks:
            await asyncio.to_thread(self.write, chunk)

    def close(self) -> None:
        """Removes the file."""
        self._file.close()


def too_large(size: int | None, max_bytes: int) -> AudioTooLarge:
    """The error for a file of `size` bytes, None when that is not known, where `max_bytes` are accepted."""
    limit = f"at most {max_bytes / 2**20:.0f} MiB are accepted"
    what = "is too large" if size is None else f"has {size / 2**20:.0f} MiB"
    return AudioTooLarge(
        f"The file {what}; {limit}.", fix="Send a shorter recording, or compress it, for example to OGG/Opus."
    )


@contextmanager
def disk_full_as_error() -> Iterator[None]:
    """Turns the system's reports of a full disk into `DiskFull`."""
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        if getattr(error, "errno", None) not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        raise DiskFull(
            "There is no room left on the disk.", fix="Free some space, then try again."
        ) from error
