"""Work on an avatar while it goes on: how far it is, how long it will take, what is worth telling."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Final

from server.cli.console import print_json_line, say, stderr, to_data, wait_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from viseme import Client, Operation, VisemeError

LINE_SECONDS: Final = 15.0
"""Shortest time between two lines about one stage when nothing can be drawn."""

PATIENCE_SECONDS: Final = 60.0
"""How long a server that has gone is waited for."""

_TRAINING: Final = {
    "mouth": "learning the mouth",
    "face": "learning the face",
    "fuse": "joining mouth and face",
}


def follow(client: Client, name: str, *, json: bool) -> Operation:
    """Shows an operation until it is done.

    Args:
        client: Of the server that does it.
        name: `operations/ID`.
        json: Write it on standard output whenever it changes, a JSON document a line, instead of showing it.

    Returns:
        The operation, done.

    Raises:
        VisemeError: There is no such operation, or the server stayed away.
    """
    last: Operation | None = None
    with OperationView(drawing=not json) as view:
        watched = client.operations.watch(name, patience=PATIENCE_SECONDS, on_lost=view.lost)
        for last in watched:
            view.show(last)
            if json:
                print_json_line(to_data(last))
    if last is None:
        raise EOFError(f"the server told nothing of {name}")
    return last


class OperationView:
    """Shows an operation on standard error: live on a terminal, as lines elsewhere; a context manager.

    Args:
        drawing: Whether anything is shown but that the server has gone.
    """

    def __init__(self, *, drawing: bool) -> None:
        self._drawing = drawing
        self._operation: Operation | None = None
        self._heard = 0.0
        self._told = ""
        self._attempt = 0
        self._stage = ""
        self._next_line = 0.0
        self._waiting = False
        self._live: Live | None = None

    def __enter__(self) -> OperationView:
        """Begins to draw."""
        if self._drawing and stderr().is_terminal:
            from rich.live import Live

            self._live = Live(console=stderr(), get_renderable=self._picture, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the last picture on the screen."""
        if self._live is not None:
            self._live.stop()

    def show(self, operation: Operation) -> None:
        """Takes what was heard of the operation into the picture."""
        self._operation, self._heard = operation, time.monotonic()
        self._waiting = False
        if not self._drawing:
            return
        if operation.attempt > self._attempt > 0:
            say("It was interrupted and goes on.")
        self._attempt = operation.attempt
        if operation.message and operation.message != self._told:
            say(operation.message)
        self._told = operation.message
        if self._live is None and not operation.done:
            self._line(operation)

    def lost(self, _error: VisemeError) -> None:
        """Tells that the server does not answer."""
        if not self._waiting:
            say("The server does not answer; what is done is kept. Asking again ...")
        self._waiting = True

    def _line(self, operation: Operation) -> None:
        stage = stage_text(operation)
        if stage != self._stage:
            self._stage = stage
            self._next_line = self._heard + LINE_SECONDS
            say(f"{stage} ...")
        elif self._heard >= self._next_line:
            self._next_line = self._heard + LINE_SECONDS
            facts = (f"{100 * operation.fraction:.0f} %", self._remaining(), *_details(operation))
            say(f"{stage}: {', '.join(fact for fact in facts if fact)}")

    def _remaining(self) -> str:
        operation = self._operation
        if operation is None or operation.remaining is None or operation.done:
            return ""
        left = operation.remaining - (time.monotonic() - self._heard)
        return f"about {wait_text(max(0.0, left))} left"

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        operation = self._operation
        if operation is None:
            return Spinner("dots", "asking the server")
        if not operation.done:
            mark: RenderableType = Spinner("dots", style="cyan")
        else:
            mark = Text("✗", "red") if operation.error else Text("✓", "green")
        row = Table.grid(padding=(0, 1))
        row.add_row(
            mark,
            Text("the server does not answer" if self._waiting else stage_text(operation)),
            ProgressBar(total=1.0, completed=operation.fraction, width=24),
            Text(f"{100 * operation.fraction:.0f} %"),
            Text(self._remaining(), "dim"),
        )
        details = "" if operation.done else ", ".join(_details(operation))
        return Group(row, Text(f"  {details}", "dim")) if details else row


def stage_text(operation: Operation) -> str:
    """What is being done, in words."""
    if operation.done:
        return "done" if operation.error is None else "ended"
    if not operation.stage:
        return "waiting for its turn" if operation.start_time is None else "starting"
    words = operation.stage.replace("_", " ")
    return _TRAINING.get(operation.stage, words) if operation.task == "train" else f"preparing: {words}"


def _details(operation: Operation) -> list[str]:
    facts = []
    if operation.steps and operation.task == "train":
        facts.append(f"step {operation.step} of {operation.steps}")
    if operation.loss is not None:
        facts.append(f"loss {operation.loss:.4f}")
    if operation.psnr is not None:
        facts.append(f"PSNR {operation.psnr:.1f} dB")
    if operation.device:
        facts.append(f"on {operation.device}")
    return facts
