"""The requests that wait, in the order in which they are served."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass, field

from gpu_scheduler.ledger import Earmark
from gpu_scheduler.requests import Class, Request


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that waits.

    Attributes:
        request: The request.
        asked: When it came first, in the scheduler's time.
        number: Of its arrival; earlier comes first at one time.
        earmark: The place that is kept for it.
    """

    request: Request
    asked: float
    number: int
    earmark: Earmark | None = None


@dataclass(slots=True)
class _Line:
    """Those of one class and tenant for whom no place is kept: by age, and their needs by size."""

    order: list[tuple[float, int, Waiting]] = field(default_factory=list)
    needs: list[int] = field(default_factory=list)


class WaitingLine:
    """All requests that wait, by id, and those for whom no place is kept by class and tenant."""

    def __init__(self) -> None:
        self.all: dict[str, Waiting] = {}
        self.models: dict[str, int] = {}
        self._lines: dict[Class, dict[str, _Line]] = {work: {} for work in Class}
        self._count = 0

    def add(self, request: Request, asked: float, earmark: Earmark | None = None) -> Waiting:
        """Lets a request wait."""
        self._count += 1
        waiting = Waiting(request, asked, self._count)
        self.all[request.id] = waiting
        if earmark is None:
            self._line_up(waiting)
        else:
            waiting.earmark = earmark
        return waiting

    def remove(self, waiting: Waiting) -> None:
        """A request waits no longer."""
        del self.all[waiting.request.id]
        if waiting.earmark is None:
            self._leave_line(waiting)

    def mark(self, waiting: Waiting, earmark: Earmark | None) -> None:
        """A place is kept for a request from now on, or no longer."""
        if waiting.earmark is None:
            self._leave_line(waiting)
        waiting.earmark = earmark
        if earmark is None:
            self._line_up(waiting)

    def tenants(self, work: Class) -> Collection[str]:
        """Tenants who wait in a class with no place kept."""
        return self._lines[work]

    def smallest(self, work: Class, tenant: str) -> int:
        """The least memory that one of them needs."""
        return self._lines[work][tenant].needs[0]

    def first(self, work: Class, tenant: str, limit: int, models: Set[str], but: Set[str]) -> Waiting | None:
        """The oldest of a tenant that needs at most so much memory, or one of certain models.

        Args:
            work: The class.
            tenant: The tenant.
            limit: Memory in bytes.
            models: With one of these it may need more.
            but: Ids that are passed over.
        """
        line = self._lines[work].get(tenant)
        if line is None or (line.needs[0] > limit and not models):
            return None
        for _, _, waiting in line.order:
            request = waiting.request
            if (request.bytes <= limit or request.model in models) and request.id not in but:
                return waiting
        return None

    def overdue(self, asked_before: dict[Class, float]) -> Iterator[Waiting]:
        """Those who came before a moment, which depends on their class, the oldest first."""
        late = [
            waiting for waiting in self.all.values() if waiting.asked <= asked_before[waiting.request.work]
        ]
        return iter(sorted(late, key=lambda waiting: (waiting.asked, waiting.number)))

    def _line_up(self, waiting: Waiting) -> None:
        request = waiting.request
        line = self._lines[request.work].setdefault(request.tenant, _Line())
        insort(line.order, (waiting.asked, waiting.number, waiting))
        insort(line.needs, request.bytes)
        if request.model:
            self.models[request.model] = self.models.get(request.model, 0) + 1

    def _leave_line(self, waiting: Waiting) -> None:
        request = waiting.request
        line = self._lines[request.work][request.tenant]
        del line.order[bisect_left(line.order, (waiting.asked, waiting.number))]
        del line.needs[bisect_left(line.needs, request.bytes)]
        if not line.order:
            del self._lines[request.work][request.tenant]
        if request.model:
            self.models[request.model] -= 1
            if not self.models[request.model]:
                del self.models[request.model]
