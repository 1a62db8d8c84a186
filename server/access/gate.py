"""The way in: who calls, whether they may, and whether not too often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from server.access.caller import LOCAL, Caller, calling_as
from server.access.rates import Allowance
from server.access.scopes import NEEDED, OPEN
from server.access.tokens import TokenStore
from server.errors import ScopeMissing, TokenInvalid, TokenRequired

_BEARER: Final = "bearer "
_USED_SECONDS: Final = 60.0
_MOST_TEXT: Final = 512
_FIX: Final = "Set VISEME_TOKEN_FILE to a file with a token; viseme tokens create makes one."


class Gate:
    """Decides about calls.

    Args:
        tokens: The tokens that are asked for; None lets everyone in, who is then the local operator.
        allowance: How fast and how many calls the holders of tokens may make.
    """

    def __init__(self, tokens: TokenStore | None, allowance: Allowance) -> None:
        self._tokens = tokens
        self._allowance = allowance
        self._noted: dict[str, float] = {}
        self._writing: set[asyncio.Future[None]] = set()

    def caller(self, method: str, metadata: Any) -> Caller:
        """Who makes a call.

        Args:
            method: `/package.Service/Method`.
            metadata: What came with the call: pairs of key and value.

        Raises:
            TokenRequired: No token came.
            TokenInvalid: It is none of ours.
            TokenExpired: It has ended.
            TokenRevoked: It was revoked.
            ScopeMissing: It does not allow this call.
        """
        needed = NEEDED.get(method)
        if self._tokens is None or needed == OPEN:
            return LOCAL
        token = self._tokens.verify(_presented(metadata))
        caller = Caller(token.tenant, token.id, token.scopes)
        self._note(token.id)
        if needed is None or not needed & caller.scopes:
            scopes = " or ".join(sorted(needed or ())) or "more than any token has"
            raise ScopeMissing(
                f"This call needs the scope {scopes}; the token has {', '.join(sorted(caller.scopes))}.",
                fix="Ask the operator of the server for a token with that scope.",
            )
        return caller

    @contextmanager
    def admitted(self, caller: Caller) -> Iterator[None]:
        """Serves a caller for as long as the context lasts.

        Raises:
            RateLimited: The calls come too fast.
            TooManyCalls: As many as there may be are under way.
        """
        with calling_as(caller):
            if not caller.token:
                yield
                return
            with self._allowance.admit(caller.tenant, caller.token):
                yield

    def _note(self, identifier: str) -> None:
        """Keeps that a token was used, once a minute and beside the call."""
        now = time.time()
        if self._tokens is None or now - self._noted.get(identifier, 0) < _USED_SECONDS:
            return
        self._noted[identifier] = now
        writing = asyncio.ensure_future(asyncio.to_thread(self._tokens.note_used, identifier, now))
        self._writing.add(writing)
        writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled():
            writing.exception()  # A full disk keeps nobody out.


def _presented(metadata: Any) -> str:
    """The token that came with a call.

    Raises:
        TokenRequired: None came.
        TokenInvalid: It is not presented as a bearer token, or more than one came.
    """
    values = [value for key, value in metadata or () if key == "authorization"]
    if not values:
        raise TokenRequired(fix=_FIX)
    text = values[0] if isinstance(values[0], str) else ""
    if len(values) > 1 or len(text) > _MOST_TEXT or not text[: len(_BEARER)].lower() == _BEARER:
        raise TokenInvalid("The token must be presented once, as 'authorization: Bearer TOKEN'.")
    return text[len(_BEARER) :].strip()
