"""Ctrl-C ends a command, whatever the command is doing.

Python raises KeyboardInterrupt wherever the main thread happens to be. Rarely that is a place that swallows
it, or one that leaves a lock of gRPC held, and the command would hang. So it gets some seconds to end by
itself, and is then ended from another thread, which removes what the command would have removed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

GRACE_SECONDS: Final = 6.0
_EXIT_CODE: Final = 130
_unfinished: Final[set[Path]] = set()


def remove_when_interrupted(path: Path) -> None:
    """Names a file that must not stay when the command is ended from outside."""
    _unfinished.add(path)


def keep(path: Path) -> None:
    """Takes the name back."""
    _unfinished.discard(path)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, Ctrl-C raises KeyboardInterrupt, and ends the process if nothing came of that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        threading.Thread(target=_end_after_grace, args=(over,), name="interrupt", daemon=True).start()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        over.set()
        signal.signal(signal.SIGINT, before)


def _end_after_grace(over: threading.Event) -> None:
    if over.wait(GRACE_SECONDS):
        return
    for path in tuple(_unfinished):
        path.unlink(missing_ok=True)
    sys.stderr.write("Error: Stopped.\n")
    sys.stderr.flush()
    os._exit(_EXIT_CODE)
