"""A reply as it comes into being: stages, what was heard, what is said."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from server.cli import demo_texts as texts
from server.cli.console import seconds_text, size_text, stderr

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.console import RenderableType
    from rich.live import Live
    from viseme import Event, Reply

    from server.cli.files import OutputFile


class ReplyView:
    """Shows the events of one reply on standard error: live on a terminal, as lines elsewhere."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._stages: dict[str, tuple[float, float | None]] = {}
        self._transcript = ""
        self._sentences: list[str] = []
        self._received = 0
        self._live: Live | None = None

    def __enter__(self) -> ReplyView:
        """Begins to draw."""
        self._began = time.monotonic()
        if stderr().is_terminal:
            from rich.live import Live

            self._live = Live(
                console=stderr(), get_renderable=self._picture, refresh_per_second=8, transient=False
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the last picture on the screen."""
        if self._live is not None:
            self._live.stop()

    @property
    def seconds(self) -> float:
        """Since it began to draw."""
        return time.monotonic() - self._began

    def show(self, event: Event) -> None:
        """Takes an event into the picture."""
        from viseme import Progress, Sentence, Transcript, VideoPiece

        if isinstance(event, Progress):
            start = self._stages.get(event.stage, (event.elapsed, None))[0]
            self._stages[event.stage] = (start, event.elapsed if event.finished else None)
            if not event.finished:
                self._line(f"{texts.STAGES.get(event.stage, event.stage)} ...")
        elif isinstance(event, Transcript):
            self._transcript = event.text
            self._line(f"{texts.HEARD}: {event.text}")
            if event.damaged:
                stderr().print(texts.DAMAGED, markup=False)
        elif isinstance(event, Sentence):
            self._sentences.append(event.text)
            self._line(f"{texts.SAYS}:  {event.text}")
        elif isinstance(event, VideoPiece):
            self._received += len(event.data)

    def _line(self, text: str) -> None:
        if self._live is None:
            stderr().print(text, markup=False)

    def _picture(self) -> RenderableType:
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        stages = Table.grid(padding=(0, 1))
        now = self.seconds
        for name, (start, end) in self._stages.items():
            mark = Spinner("dots", style="cyan") if end is None else Text("✓", style="green")
            took = (now if end is None else end) - start
            stages.add_row(
                mark, Text(texts.STAGES.get(name, name)), Text(seconds_text(max(0.0, took)), "dim")
            )
        lines: list[RenderableType] = [stages] if self._stages else [Spinner("dots", "sending the question")]
        if self._transcript:
            lines.append(Text.assemble((f"{texts.HEARD} ", "bold"), self._transcript))
        if self._sentences:
            lines.append(Text.assemble((f"{texts.SAYS}  ", "bold"), " ".join(self._sentences)))
        return Group(*lines)


def follow(events: Iterable[Event], output: OutputFile) -> tuple[Reply, int, float]:
    """Shows a reply while it arrives, and writes its video.

    Args:
        events: What `Client.stream_reply` gives.
        output: An open file; it is complete and has its name afterwards.

    Returns:
        The reply, the size of its video in bytes, and the seconds it took.

    Raises:
        VisemeError: As `Client.stream_reply`.
        CommandError: If the file cannot be written.
    """
    from viseme import Reply, VideoPiece

    size = 0
    reply = None
    with ReplyView() as view:
        for event in events:
            view.show(event)
            if isinstance(event, VideoPiece):
                output.write(event.data)
                size += len(event.data)
            elif isinstance(event, Reply):
                reply = event
        if reply is None:
            raise EOFError("the server ended the reply without its summary")
        output.commit()
        return reply, size, view.seconds


def reply_facts(reply: Reply, path: Path, size: int, seconds: float) -> dict[str, Any]:
    """A finished reply as JSON-ready data."""
    return {
        "output": str(path),
        "size_bytes": size,
        "transcript": reply.transcript,
        "language": reply.language,
        "text": reply.text,
        "provider": reply.provider,
        "frames": reply.frame_count,
        "audio_seconds": reply.audio_seconds,
        "truncated": reply.truncated,
        "seconds": round(seconds, 3),
        "timings": [
            {
                "stage": timing.stage,
                "start": timing.start,
                "first_output": timing.first_output,
                "end": timing.end,
            }
            for timing in reply.timings
        ],
    }


def written_line(reply: Reply, path: Path, size: int, seconds: float) -> str:
    """The sentence that says where the video is."""
    return texts.WRITTEN.format(
        path=path,
        length=seconds_text(reply.audio_seconds),
        size=size_text(size),
        seconds=seconds_text(seconds),
    )
