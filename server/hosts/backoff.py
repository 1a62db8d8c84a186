"""When a host that died is started again."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How patient the supervisor is with a host.

    Attributes:
        initial: Seconds before the first restart.
        factor: Each further failure within the window waits this many times longer.
        maximum: Longest wait in seconds, before jitter.
        jitter: The wait varies by up to this share of itself, so that hosts do not restart in step.
        limit: This many failures within the window stop the restarts.
        window: Seconds after which a failure is forgotten.
        ping: Seconds between two questions whether it answers, and to wait for each answer.
        pings: A host that misses this many in a row is hung, and killed; one that is busy with all cores may
            miss a few.
    """

    initial: float = 0.2
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 0.25
    limit: int = 5
    window: float = 60.0
    ping: float = 5.0
    pings: int = 4

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after the nth failure in a row.

        Args:
            failures: Number of failures within the window, at least 1.
            chance: A random number from 0 to 1.
        """
        # The exponent is bounded, so that no number of failures overflows.
        patient = min(self.maximum, self.initial * self.factor ** min(failures - 1, 64))
        return patient * (1 + self.jitter * (2 * chance - 1))


class Breaker:
    """Counts failures of one host.

    Args:
        policy: How patient to be.
        clock: Seconds that never go back.
        chance: Random numbers from 0 to 1.
    """

    def __init__(
        self,
        policy: RestartPolicy,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._failures: deque[float] = deque(maxlen=policy.limit)

    def failed(self) -> float | None:
        """Notes a failure; returns the seconds to wait before the next start, or None for no more starts."""
        now = self._clock()
        self._failures.append(now)
        while self._failures[0] < now - self._policy.window:
            self._failures.popleft()
        if len(self._failures) >= self._policy.limit:
            return None
        return self._policy.delay(len(self._failures), self._chance())

    def reset(self) -> None:
        """Forgets all failures."""
        self._failures.clear()
