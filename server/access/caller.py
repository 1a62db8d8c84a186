"""Who makes the call that is under way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from server.access.scopes import Scope

OPERATOR: Final = ""
"""The tenant of whoever runs this server, and of everyone on the machine while no tokens are asked for."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        tenant: Whose resources are seen; OPERATOR's own when empty.
        token: Id of the token that was presented; empty when none was asked for.
        scopes: What is allowed.
    """

    tenant: str
    token: str
    scopes: frozenset[Scope]


LOCAL: Final = Caller(OPERATOR, "", frozenset(Scope))
"""Somebody on this machine, while no tokens are asked for."""

_current: ContextVar[Caller] = ContextVar("caller", default=LOCAL)


def current() -> Caller:
    """Who makes the call that this task serves."""
    return _current.get()


@contextmanager
def calling_as(caller: Caller) -> Iterator[None]:
    """Serves a caller for as long as the context lasts."""
    former = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(former)
