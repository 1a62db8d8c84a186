"""Ids in order of a number that changes often."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

_BITS: Final = 24
_MASK: Final = (1 << _BITS) - 1


class SortedIndex:
    """Ids by their number. A thousand entries in one list: finding is binary, moving costs a memmove.

    An entry is one integer, the number before a serial number of the id: integers compare faster than tuples.
    """

    def __init__(self) -> None:
        self._order: list[int] = []
        self._entries: dict[str, int] = {}
        self._serials: dict[str, int] = {}
        self._ids: list[str] = []

    def move(self, identifier: str, key: int | None) -> None:
        """Gives an id its number; None takes it out."""
        entry = None if key is None else (key << _BITS) + self._serial(identifier)
        known = self._entries.get(identifier)
        if known == entry:
            return
        if known is not None:
            del self._order[bisect_left(self._order, known)]
        if entry is None:
            del self._entries[identifier]
        else:
            insort(self._order, entry)
            self._entries[identifier] = entry

    def largest(self) -> int:
        """The largest number; -1 where there is none."""
        return self._order[-1] >> _BITS if self._order else -1

    def at_least(self, key: int) -> str | None:
        """The id with the smallest number that is not smaller, or None."""
        position = bisect_left(self._order, key << _BITS)
        return self._ids[self._order[position] & _MASK] if position < len(self._order) else None

    def all_at_least(self, key: int) -> set[str]:
        """All ids whose number is not smaller."""
        entries = self._order[bisect_left(self._order, key << _BITS) :]
        return {self._ids[entry & _MASK] for entry in entries}

    def _serial(self, identifier: str) -> int:
        serial = self._serials.get(identifier)
        if serial is None:
            serial = self._serials[identifier] = len(self._ids)
            self._ids.append(identifier)
        return serial
