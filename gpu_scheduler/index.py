"""Ids in order of a number that changes often."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator


class SortedIndex:
    """Ids by their number. A thousand entries in one list: finding is binary, moving costs a memmove."""

    def __init__(self) -> None:
        self._order: list[tuple[int, str]] = []
        self._keys: dict[str, int] = {}

    def move(self, identifier: str, key: int | None) -> None:
        """Gives an id its number; None takes it out."""
        known = self._keys.get(identifier)
        if known == key:
            return
        if known is not None:
            del self._order[bisect_left(self._order, (known, identifier))]
        if key is None:
            del self._keys[identifier]
        else:
            insort(self._order, (key, identifier))
            self._keys[identifier] = key

    def largest(self) -> int:
        """The largest number; -1 where there is none."""
        return self._order[-1][0] if self._order else -1

    def at_least(self, key: int) -> Iterator[str]:
        """The ids whose number is not smaller, the smallest first. Nothing may move meanwhile."""
        order = self._order
        for position in range(bisect_left(order, (key, "")), len(order)):
            yield order[position][1]
