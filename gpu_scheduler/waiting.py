"""The requests that wait, in the order in which they are served."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Set
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
        self._needs: dict[Class, list[int]] = {work: [] for work in Class}
        self._models: dict[tuple[Class, str], list[tuple[int, str]]] = {}
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

    def smallest(self, work: Class) -> int | None:
        """The least memory that somebody of a class needs for whom no place is kept."""
        needs = self._needs[work]
        return needs[0] if needs else None

    def tenants(self, work: Class, limit: int, warm: Mapping[str, int]) -> list[str]:
        """Tenants of whom somebody in a class could be served; the arguments are those of `first`."""
        needs = self._needs[work]
        some = bool(needs) and needs[0] <= limit
        lines = self._lines[work].items() if some else ()
        found = [tenant for tenant, line in lines if line.needs[0] <= limit]
        for model, most in warm.items():
            for need, tenant in self._models.get((work, model), ()):
                if need > most:
                    break
                if tenant not in found:
                    found.append(tenant)
        return found

    def first(
        self, work: Class, tenant: str, limit: int, warm: Mapping[str, int], but: Set[str]
    ) -> Waiting | None:
        """The oldest of a tenant that needs at most so much memory.

        Args:
            work: The class.
            tenant: The tenant.
            limit: Memory in bytes.
            warm: The same for those who would use a certain model.
            but: Ids that are passed over.
        """
        line = self._lines[work].get(tenant)
        if line is None or (line.needs[0] > limit and not warm):
            return None
        for _, _, waiting in line.order:
            request = waiting.request
            need = request.bytes
            if (need <= limit or need <= warm.get(request.model, -1)) and request.id not in but:
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
        insort(self._needs[request.work], request.bytes)
        if request.model:
            needs = self._models.setdefault((request.work, request.model), [])
            insort(needs, (request.bytes, request.tenant))

    def _leave_line(self, waiting: Waiting) -> None:
        request = waiting.request
        line = self._lines[request.work][request.tenant]
        del line.order[bisect_left(line.order, (waiting.asked, waiting.number))]
        del line.needs[bisect_left(line.needs, request.bytes)]
        if not line.order:
            del self._lines[request.work][request.tenant]
        all_needs = self._needs[request.work]
        del all_needs[bisect_left(all_needs, request.bytes)]
        if request.model:
            needs = self._models[request.work, request.model]
            del needs[bisect_left(needs, (request.bytes, request.tenant))]
            if not needs:
                del self._models[request.work, request.model]
