"""The id that one request has in the logs of the server and its hosts, and in the errors that callers see."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog

HEADER: Final = "x-request-id"
"""Name of the metadata that it travels in."""

_FIELD: Final = "request_id"
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")


def accepted(metadata: Any) -> str:
    """The id that a caller gave, when it is well-formed, else a new one.

    Args:
        metadata: What came with the call: pairs of key and value.
    """
    given = next((value for key, value in metadata or () if key == HEADER), "")
    if isinstance(given, str) and _WELL_FORMED.fullmatch(given):
        return given
    return uuid.uuid4().hex[:16]


@contextmanager
def request(identifier: str) -> Iterator[None]:
    """Works on a request for as long as the context lasts: what is logged meanwhile names it."""
    with structlog.contextvars.bound_contextvars(**{_FIELD: identifier}):
        yield


def host_metadata() -> tuple[tuple[str, str], ...]:
    """The metadata of a call to a host: the id of the request that is worked on, when there is one."""
    identifier = structlog.contextvars.get_contextvars().get(_FIELD)
    return ((HEADER, str(identifier)),) if identifier else ()
