"""How many turns and renders run at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import ServerBusy, ServerStopping


class Admission:
    """Lets requests in while there is room.

    Args:
        most: Requests at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._active = 0
        self._stopping = False

    @property
    def active(self) -> int:
        """Requests that are in."""
        return self._active

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Lets a request in for as long as the context lasts.

        Raises:
            ServerBusy: As many as may be are in.
            ServerStopping: Nobody is let in any more.
        """
        if self._stopping:
            raise ServerStopping(fix="Try again when it has started again.")
        if self._active >= self._most:
            raise ServerBusy(f"The server is at work on {self._active} requests, as many as it may.")
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1

    def close(self) -> None:
        """Lets nobody in from now on."""
        self._stopping = True
