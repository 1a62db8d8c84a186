"""How calls of grpc.aio really ended."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
import grpc.aio

_WRITE_FAILED = "Internal error from Core"
_SETTLE_SECONDS = 1.0


class Ending:
    """Learns how a call that requests are written to really ended.

    When a call ends while a request is being written, grpc.aio says INTERNAL: instead of the status that the
    other side sent, which it then forgets, or a moment before that. Each status is therefore noted when it is
    set; a task that waits for the first would already find the second.

    Args:
        call: The call of grpc.aio.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._error: grpc.aio.AioRpcError | None = None
        self._known = asyncio.Event()
        call.add_done_callback(self._note)

    async def error(self, seen: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """The error the call ended with, where grpc.aio has shown `seen`."""
        if not is_write_failure(seen):
            return seen
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._known.wait(), _SETTLE_SECONDS)
        return self._error or seen

    def _note(self, _call: object) -> None:
        call = self._call
        error = grpc.aio.AioRpcError(
            _at_once(call.code()),
            _at_once(call.initial_metadata()),
            _at_once(call.trailing_metadata()),
            _at_once(call.details()),
            None,
        )
        if not is_write_failure(error):
            self._error = error
            self._known.set()


def is_write_failure(error: Any) -> bool:
    """Whether an error says no more than that a request could not be written."""
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _WRITE_FAILED


def _at_once(result: Any) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        result.send(None)
    except StopIteration as end:
        return end.value
    result.close()
    raise RuntimeError("a call that has ended lets its status be waited for")
