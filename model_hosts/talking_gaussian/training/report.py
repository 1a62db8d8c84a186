"""What the training command prints and where it puts previews."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from model_hosts.talking_gaussian.images import encode_png
from model_hosts.talking_gaussian.training.events import (
    Event,
    Note,
    Preview,
    Progress,
    StageMetrics,
    as_json,
)


class Report:
    """Tells what happens: JSON lines on standard output, or lines for people on standard error.

    Args:
        as_lines: Whether to tell events as JSON lines.
        preview: File that always shows the latest preview, if any.
    """

    def __init__(self, as_lines: bool, preview: Path | None) -> None:
        self._json, self._preview = as_lines, preview

    def event(self, event: Event) -> None:
        """Tells an event of the training; a preview is put into its file first."""
        if isinstance(event, Preview):
            self._show(event)
        elif self._json:
            self._line(as_json(event))
        elif isinstance(event, Progress):
            self.say(
                f"{event.stage} {event.step}/{event.steps}  loss {event.loss:.4f}  psnr {event.psnr:.2f}"
                f"  {100 * event.fraction:.0f} %  {event.seconds_left:.0f} s left"
            )
        elif isinstance(event, StageMetrics):
            figures = "  ".join(f"{name} {value:.2f} dB" for name, value in event.metrics.items())
            self.say(f"{event.stage} done in {event.seconds:.0f} s  held out: {figures}")
        elif isinstance(event, Note):
            self.say(f"note: {event.message}")

    def stopped(self, path: Path) -> None:
        """The run ended on request; its state is in `path`."""
        if self._json:
            self._line({"event": "stopped", "checkpoint": str(path)})
        self.say(f"stopped; the same command goes on from {path}")

    def finished(self, result: dict[str, Any]) -> None:
        """The bundle is written; `result` says how good it is."""
        if self._json:
            self._line({"event": "finished", **result})
        else:
            self.say(json.dumps(result))

    def error(self, message: str) -> None:
        """The training cannot go on."""
        if self._json:
            self._line({"event": "error", "message": message})
        self.say(f"error: {message}")

    def say(self, text: str) -> None:
        """A line for people."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def _show(self, event: Preview) -> None:
        if self._preview is None:
            return
        fresh = self._preview.with_name(self._preview.name + ".new")
        try:
            fresh.write_bytes(encode_png(event.picture))
            fresh.replace(self._preview)
        except OSError as error:  # no reason to end a training
            self.say(
                f"note: {self._preview} cannot be written ({error.strerror}); there are no more previews"
            )
            fresh.unlink(missing_ok=True)
            self._preview = None
            return
        if self._json:
            self._line({**as_json(event), "path": str(self._preview)})

    def _line(self, values: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()
