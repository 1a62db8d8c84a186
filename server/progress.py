"""How long work reports its progress: environments and assets tell a sink, the command line draws it."""

from __future__ import annotations

from typing import Protocol


class ProgressSink(Protocol):
    """Receives progress of named tasks; called from any thread and must not block."""

    def update(self, task: str, done: float, total: float | None, unit: str) -> None:
        """Says how far a task has come; the first call announces it.

        Args:
            task: What is being done, in words for a user; the same words in every call of one task.
            done: Amount done so far, in units.
            total: Amount in all, or None while nobody knows.
            unit: Name of the unit in the plural, such as "packages" or "bytes".
        """

    def finish(self, task: str) -> None:
        """Says that a task is over, whether it succeeded or not."""


class SilentProgress:
    """A sink that shows nothing."""

    def update(self, task: str, done: float, total: float | None, unit: str) -> None:
        """Ignores the report."""

    def finish(self, task: str) -> None:
        """Ignores the end."""
