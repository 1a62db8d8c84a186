"""Progress of long work: bars on a terminal, now and then a line elsewhere, nothing when it is soon over."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final

from server.cli.console import size_text, stderr

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_SECONDS: Final = 5.0
"""Shortest time between two lines about one task when bars cannot be drawn."""


class ProgressDisplay:
    """Shows tasks as they are reported from any thread; a `ProgressSink`. Use it as a context manager."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> ProgressDisplay:
        """Begins to draw."""
        if stderr().is_terminal:
            self._bars = _bars()
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops drawing; what is finished stays on the screen."""
        if self._bars is not None:
            self._bars.stop()

    def update(self, task: str, done: float, total: float | None, unit: str) -> None:
        """Shows how far a task has come."""
        with self._lock:
            if self._bars is None:
                self._line(task, done, total, unit)
                return
            amount = _amount(done, total, unit)
            known = self._tasks.get(task)
            if known is None:
                known = self._tasks[task] = self._bars.add_task(task, total=total, amount=amount)
            self._bars.update(known, total=total, completed=done, amount=amount)

    def finish(self, task: str) -> None:
        """Shows a task as done."""
        with self._lock:
            known = self._tasks.pop(task, None)
            if self._bars is not None and known is not None:
                self._bars.update(known, total=1, completed=1, amount="")
            elif self._said.pop(task, None) is not None:
                stderr().print(f"{task}: over", markup=False)

    def _line(self, task: str, done: float, total: float | None, unit: str) -> None:
        now = time.monotonic()
        if now - self._said.get(task, -LINE_SECONDS) >= LINE_SECONDS:
            self._said[task] = now
            amount = _amount(done, total, unit)
            stderr().print(f"{task}: {amount}" if amount else f"{task} ...", markup=False)


def _bars() -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
        console=stderr(),
    )


def _amount(done: float, total: float | None, unit: str) -> str:
    if unit == "bytes":
        return f"{size_text(done)} of {size_text(total)}" if total else size_text(done)
    if total:
        return f"{done:.0f} of {total:.0f} {unit}"
    return f"{done:.0f} {unit}" if done else ""
