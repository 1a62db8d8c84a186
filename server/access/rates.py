"""How fast and how many calls somebody may make: a token bucket and a count."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.errors import RateLimited, TooManyCalls


class Bucket:
    """Lets calls through at a steady rate, and some at once after a pause.

    Args:
        rate: Calls a second.
        burst: Calls at once.
        clock: Gives seconds.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._level = burst
        self._seen = clock()

    def take(self) -> float:
        """Takes one call out.

        Returns:
            0 when there was one, else the seconds until there will be.
        """
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._seen) * self._rate)
        self._seen = now
        if self._level < 1:
            return (1 - self._level) / self._rate
        self._level -= 1
        return 0.0


class Allowance:
    """What the holders of tokens may do: a rate for each token, calls at the same time for each tenant.

    Args:
        rate: Calls a second of one token.
        burst: Calls at once of one token.
        most_calls: Calls of one tenant that are under way at the same time.
        clock: Gives seconds.
    """

    def __init__(
        self, *, rate: float, burst: int, most_calls: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._most_calls = most_calls
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        self._calls: dict[str, int] = {}

    @contextmanager
    def admit(self, tenant: str, token: str) -> Iterator[None]:
        """Lets a call in for as long as the context lasts.

        Raises:
            RateLimited: The calls of the token come too fast.
            TooManyCalls: The tenant has as many under way as it may.
        """
        bucket = self._buckets.get(token)
        if bucket is None:
            bucket = self._buckets[token] = Bucket(self._rate, self._burst, self._clock)
        if seconds := bucket.take():
            limited = RateLimited(
                f"At most {self._rate:g} calls a second are let through.",
                fix=f"Wait {seconds:.1f} s.",
            )
            limited.retry_seconds = seconds
            raise limited
        count = self._calls.get(tenant, 0)
        if count >= self._most_calls:
            raise TooManyCalls(f"{count} calls are under way, as many as there may be at the same time.")
        self._calls[tenant] = count + 1
        try:
            yield
        finally:
            left = self._calls[tenant] - 1
            if left:
                self._calls[tenant] = left
            else:
                del self._calls[tenant]
