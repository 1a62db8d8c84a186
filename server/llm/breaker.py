"""Leaves a service alone that fails again and again, and finds out with one question whether it is well."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from server.llm.provider import ProviderFailed

_LASTING_SECONDS: Final = 300.0
"""A refused key or an unknown model: nothing changes by itself."""


class Ticket:
    """Leave to ask once."""


class Breaker:
    """The circuit breaker of one provider.

    Args:
        failures: So many in a row open it.
        seconds: How long it stays open.
        clock: Seconds that never go backwards.
    """

    def __init__(self, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = failures
        self._seconds = seconds
        self._clock = clock
        self._failures = 0
        self._until: float | None = None
        self._asked_to_wait = False
        self._probe: Ticket | None = None

    @property
    def remaining(self) -> float:
        """Seconds until it may be asked again; 0 when it may."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    def admit(self, *, insist: bool = False) -> Ticket | None:
        """Asks for leave to ask.

        Args:
            insist: There is nobody else to ask: only a service that said itself how long it wants to be left
                alone is not asked.

        Returns:
            What is handed back with the outcome; None when the provider is left alone.
        """
        ticket = Ticket()
        if self._until is None:
            return ticket
        if self.remaining:
            return ticket if insist and not self._asked_to_wait else None
        if self._probe is not None:
            return ticket if insist else None
        self._probe = ticket
        return ticket

    def succeeded(self) -> None:
        """It answered."""
        self._failures = 0
        self._until = self._probe = None
        self._asked_to_wait = False

    def failed(self, ticket: Ticket, failure: ProviderFailed) -> None:
        """It did not; a failure that says nothing about the service changes nothing."""
        self.abandoned(ticket)
        if not failure.counts:
            return
        self._failures += 1
        if failure.retry_after is not None:
            self._open(failure.retry_after)
            self._asked_to_wait = True
        elif failure.lasting:
            self._open(max(_LASTING_SECONDS, self._seconds))
        elif self._failures >= self._most:
            self._open(self._seconds)

    def abandoned(self, ticket: Ticket) -> None:
        """Nothing was found out: the caller went away first."""
        if self._probe is ticket:
            self._probe = None

    def _open(self, seconds: float) -> None:
        self._until = self._clock() + seconds
        self._asked_to_wait = False
