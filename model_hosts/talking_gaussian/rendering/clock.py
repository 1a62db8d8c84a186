"""What the parts of a render cost."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class CpuClock:
    """CPU seconds of the parts of a render, each measured on the thread that does it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Adds what the calling thread spends inside. Only for one thread at a time."""
        start = time.thread_time()
        try:
            yield
        finally:
            self.seconds[part] += time.thread_time() - start
