"""What becomes known of an operation while it is carried out, until it is stored."""

from __future__ import annotations

import time
from collections.abc import Sequence

from google.protobuf.message import Message

from server.operations.store import LogLine, OperationRecord


class Journal:
    """The progress and the log of an operation.

    Args:
        record: The operation as it was claimed.

    Attributes:
        latest: The latest progress, serialised.
        advanced: Whether it got further than it was when it was claimed.
    """

    def __init__(self, record: OperationRecord) -> None:
        self.latest = record.metadata
        self.advanced = False
        self._stored = record.metadata
        self._lines: list[LogLine] = []
        self._begun_at: float | None = None
        self._told = ("", "")

    def report(self, metadata: Message) -> None:
        """Takes the progress so far, and logs a stage or a message that is new."""
        self.latest = metadata.SerializeToString()
        stage, message = (str(getattr(metadata, name, "")) for name in ("stage", "message"))
        if stage and stage != self._told[0]:
            self.note(f"Stage: {stage}")
        if message and message != self._told[1]:
            self.note(message)
        self._told = (stage, message)
        fraction = float(getattr(metadata, "fraction", 0))
        # What is reported first is what was done before.
        self._begun_at = fraction if self._begun_at is None else self._begun_at
        self.advanced = self.advanced or fraction > self._begun_at

    def note(self, text: str) -> None:
        """Adds a line to the log."""
        self._lines.append(LogLine(time.time(), text))

    def unstored(self) -> bytes | None:
        """The progress, when it is not stored yet."""
        return None if self.latest == self._stored else self.latest

    def stored(self, metadata: bytes | None) -> None:
        """This progress is stored."""
        self._stored = self._stored if metadata is None else metadata

    def take_lines(self) -> Sequence[LogLine]:
        """The lines that were added since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def put_back(self, lines: Sequence[LogLine]) -> None:
        """These lines could not be stored."""
        self._lines[:0] = lines
