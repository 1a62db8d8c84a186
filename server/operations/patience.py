"""Asking a store that may not answer at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, ParamSpec, TypeVar

import structlog

from server.errors import DiskFull, StoreUnavailable

AWAY: Final = (StoreUnavailable, DiskFull)
"""What a store raises that may answer later."""

_AGAIN_SECONDS: Final = 0.5
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("operations")

P = ParamSpec("P")
T = TypeVar("T")


async def answered(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls a method of a store in a thread, again and again until the store answers.

    What it is away for is logged once.

    Raises:
        CancelledError: Nobody waits for the answer any more.
    """
    lost = False
    while True:
        try:
            answer = await asyncio.to_thread(partial(call, *args, **kwargs))
        except AWAY as error:
            if not lost:
                _log.error("operations_database_lost", reason=error.reason, problem=error.message)
            lost = True
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            if lost:
                _log.info("operations_database_back")
            return answer
