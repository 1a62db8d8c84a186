"""Running the stages of a turn side by side, and stopping all of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


async def together(*stages: Coroutine[Any, Any, None]) -> None:
    """Runs coroutines side by side until all have ended.

    When one fails the others are cancelled, and its error is raised as it is, not in a group.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for stage in stages:
                group.create_task(stage)
    except BaseExceptionGroup as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from first.__cause__


class Pipe(Generic[T]):
    """A bounded queue with an end, between one stage that writes and one that reads.

    Args:
        size: Most items that wait; the writer waits when there are as many.
    """

    def __init__(self, size: int) -> None:
        self._items: asyncio.Queue[T | None] = asyncio.Queue(size)

    async def put(self, item: T) -> None:
        """Hands on an item."""
        await self._items.put(item)

    async def close(self) -> None:
        """Ends the pipe: the reader's loop ends after the last item."""
        await self._items.put(None)

    async def __aiter__(self) -> AsyncIterator[T]:
        """The items, until the pipe is closed."""
        while (item := await self._items.get()) is not None:
            yield item
