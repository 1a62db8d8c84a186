"""The id of the request that the server works on, in every line that a call logs."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from typing import Iterator

import grpc

HEADER = "x-request-id"
_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")
# gRPC runs each call in one thread from its beginning to its end.
_current = threading.local()


def current() -> str:
    """The id of the request that this thread works on, or empty."""
    return getattr(_current, "identifier", "")


@contextlib.contextmanager
def naming(context: grpc.ServicerContext) -> Iterator[None]:
    """Names the request of a call in what its thread logs for as long as the context lasts."""
    given = [value for key, value in context.invocation_metadata() or () if key == HEADER]
    usable = given and isinstance(given[0], str) and _WELL_FORMED.fullmatch(given[0])
    _current.identifier = given[0] if usable else ""
    try:
        yield
    finally:
        _current.identifier = ""


class RequestIdFilter(logging.Filter):
    """Gives each record the field `request`: the id in brackets with a space, or nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Sets the field; lets every record through."""
        identifier = current()
        record.request = "[" + identifier + "] " if identifier else ""
        return True
