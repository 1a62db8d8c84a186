"""How long a training still takes: every stage at its own speed, because they differ several times."""

from __future__ import annotations

from collections import deque

_WINDOW = 50
"""Steps whose mean is the speed of the current stage."""


class Pace:
    """Estimates the time left from what was measured.

    Args:
        steps: Steps of every stage, in order.
    """

    def __init__(self, steps: dict[str, int]) -> None:
        self._steps = steps
        self._seconds = dict.fromkeys(steps, 0.0)
        self._ending = 0.0
        self._stage = ""
        self._times: deque[float] = deque(maxlen=_WINDOW + 1)

    def measured(self, stage: str, seconds: float) -> None:
        """Tells what one step of a stage takes."""
        self._seconds[stage] = seconds

    def begin(self, stage: str, now: float) -> None:
        """A stage begins; `now` in seconds of any clock."""
        self._stage = stage
        self._times.clear()
        self._times.append(now)

    def tick(self, now: float) -> None:
        """A step of the current stage has been done, with whatever was written and drawn in between."""
        self._times.append(now)
        self._seconds[self._stage] = (self._times[-1] - self._times[0]) / (len(self._times) - 1)

    def ended(self, seconds: float) -> None:
        """Tells what measuring at the end of a stage took."""
        self._ending = seconds

    def left(self, step: int) -> float:
        """Seconds until all stages are done, after `step` steps of the current one."""
        names = list(self._steps)
        ahead = names[names.index(self._stage) + 1 :]
        seconds = (self._steps[self._stage] - step) * self._seconds[self._stage]
        seconds += sum(self._steps[name] * self._seconds[name] for name in ahead)
        return seconds + self._ending * (len(ahead) + (step < self._steps[self._stage]))
