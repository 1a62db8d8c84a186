"""Files that arrive in pieces after a message that says what they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import IO, Any, Final, Generic, TypeVar

from viseme.v1 import avatar_pb2

from server.api.streams import Paced
from server.config import Settings
from server.errors import FieldInvalid, FieldRequired, VisemeError
from server.media.spool import disk_full_as_error

Request = TypeVar("Request", avatar_pb2.ImportAvatarRequest, avatar_pb2.CreateAvatarRequest)
_WRITE_BYTES: Final = 1024 * 1024


class Pieces(Generic[Request]):
    """A stream of requests whose first is `metadata` and whose others are `data`.

    Args:
        requests: The stream.
        settings: How slow it may be.
    """

    def __init__(self, requests: AsyncIterator[Request], settings: Settings) -> None:
        self._requests: Paced[Request] = Paced(requests, settings)

    async def metadata(self) -> Any:
        """The first request's.

        Raises:
            FieldRequired: It is something else.
        """
        first = await self._requests.next()
        if first is None or first.WhichOneof("payload") != "metadata":
            raise FieldRequired("metadata is required, and must be the first message.", field="metadata")
        return first.metadata

    async def save(self, file: IO[bytes], limit: int, too_large: VisemeError) -> int:
        """Writes the others to a file, and tells how many bytes they were.

        Raises:
            VisemeError: `too_large`, when they are more than `limit` bytes.
            FieldInvalid: More metadata is among them.
            StageTimeout: The next one does not come.
            DiskFull: They do not fit.
        """
        size = 0
        waiting = bytearray()
        while (request := await self._requests.next()) is not None:
            if request.WhichOneof("payload") != "data":
                raise FieldInvalid("metadata may be sent only once.", field="metadata")
            size += len(request.data)
            if size > limit:
                raise too_large
            waiting += request.data
            if len(waiting) >= _WRITE_BYTES:
                await self._write(file, waiting)
        await self._write(file, waiting)
        with disk_full_as_error():
            file.flush()
        return size

    async def _write(self, file: IO[bytes], waiting: bytearray) -> None:
        with disk_full_as_error():
            await asyncio.to_thread(file.write, bytes(waiting))
        waiting.clear()
