"""How many turns and renders run at the same time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from server.errors import ServerBusy, ServerStopping, TooManyCalls


class Admission:
    """Lets requests in while there is room.

    Args:
        most: Requests at the same time.
        most_of_tenant: Those of one tenant; the operator is none.
    """

    def __init__(self, most: int, most_of_tenant: int) -> None:
        self._most = most
        self._most_of_tenant = most_of_tenant
        self._of_tenant: Counter[str] = Counter()
        self._active = 0
        self._stopping = False

    @property
    def active(self) -> int:
        """Requests that are in."""
        return self._active

    @contextmanager
    def admit(self, tenant: str) -> Iterator[None]:
        """Lets a request in for as long as the context lasts.

        Args:
            tenant: Whose it is; empty for the operator's.

        Raises:
            ServerBusy: As many as may be are in.
            TooManyCalls: The tenant has as many in as it may.
            ServerStopping: Nobody is let in any more.
        """
        if self._stopping:
            raise ServerStopping(fix="Try again when it has started again.")
        if self._active >= self._most:
            raise ServerBusy(f"The server is at work on {self._active} requests, as many as it may.")
        if tenant and self._of_tenant[tenant] >= self._most_of_tenant:
            raise TooManyCalls(
                f"{self._of_tenant[tenant]} of your requests are under way, as many as there may be."
            )
        self._active += 1
        self._of_tenant[tenant] += 1
        try:
            yield
        finally:
            self._active -= 1
            self._of_tenant[tenant] -= 1

    def close(self) -> None:
        """Lets nobody in from now on."""
        self._stopping = True
