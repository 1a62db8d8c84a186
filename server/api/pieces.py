"""Files that arrive in pieces after a message that says what they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import IO, Any, Final, Generic, TypeVar

from viseme.v1 import avatar_pb2

from server.api.streams import next_in_time
from server.errors import FieldInvalid, FieldRequired, VisemeError
from server.media.spool import disk_full_as_error

Request = TypeVar("Request", avatar_pb2.ImportAvatarRequest, avatar_pb2.CreateAvatarRequest)
_WRITE_BYTES: Final = 1024 * 1024


class Pieces(Generic[Request]):
    """A stream of requests whose first is `metadata` and whose others are `data`.

    Args:
        requests: The stream.
        gap_seconds: Longest time between two of them.
    """

    def __init__(self, requests: AsyncIterator[Request], gap_seconds: float) -> None:
        self._requests: AsyncIterator[Request] = aiter(requests)
        self._gap_seconds = gap_seconds

    async def metadata(self) -> Any:
        """The first request's.

        Raises:
            FieldRequired: It is something else.
        """
        first = await self._next()
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
        while (request := await self._next()) is not None:
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

    async def _next(self) -> Request | None:
        return await next_in_time(self._requests, self._gap_seconds)
