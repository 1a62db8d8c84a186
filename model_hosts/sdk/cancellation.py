"""How a model loop learns that nobody waits for its result any more."""

from __future__ import annotations

import threading
import weakref

import grpc

_lock = threading.Lock()
_live: weakref.WeakSet[Cancellation] = weakref.WeakSet()


class Cancelled(BaseException):
    """The caller has gone; not an `Exception`, so that no handler of errors holds it up."""


class Cancellation:
    """Set when the client cancels, its deadline passes, its connection ends or the host stops.

    Model loops call `check` at every step, at least ten times a second.

    Args:
        context: The call to follow.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._event = threading.Event()
        if not context.add_callback(self._event.set):
            self._event.set()
        with _lock:
            _live.add(self)

    def is_set(self) -> bool:
        """Whether the call is over for its caller."""
        return self._event.is_set()

    def set(self) -> None:
        """Cancels the work; the next `check` raises."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Waits at most `seconds` for the cancellation and says whether it came."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Returns while somebody waits.

        Raises:
            Cancelled: Nobody does; `serve` ends the call.
        """
        if self._event.is_set():
            raise Cancelled


def cancel_all() -> None:
    """Cancels the work of every call that runs; for the end of the process."""
    with _lock:
        live = list(_live)
    for cancellation in live:
        cancellation.set()
