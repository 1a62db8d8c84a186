"""The clock that leases on one machine are measured by: it never jumps, and every process reads the same."""

from __future__ import annotations

import time


def boot_seconds() -> float:
    """Seconds since the machine was booted, sleep included where the system can tell.

    Nobody can set this clock. It begins again at zero when the machine is booted; then whoever held a lease
    is gone as well.
    """
    boot_time: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)
