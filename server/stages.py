"""Who sees the stages of turns and renders from outside: the metrics, and traces where they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from server.dialogue.events import Event, RenderDone, Stage, StageChanged, StageTimes, TurnDone
from server.errors import VisemeError
from server.metrics import Metrics
from server.tracing import Span, Tracing


class StageWatch:
    """Is shown the events of one turn or render.

    Args:
        tracing: Where spans go, or None.
    """

    def __init__(self, tracing: Tracing | None) -> None:
        self._tracing = tracing
        self._spans: dict[Stage, Span] = {}
        self.stages: dict[Stage, StageTimes] = {}

    def see(self, event: Event) -> None:
        """Takes an event."""
        if isinstance(event, TurnDone | RenderDone):
            # These know the first outputs, too.
            self.stages = {times.stage: times for times in event.timings}
        if not isinstance(event, StageChanged):
            return
        if not event.finished:
            self.stages[event.stage] = StageTimes(event.stage, event.elapsed)
            if self._tracing is not None:
                self._spans[event.stage] = self._tracing.stage(event.stage)
            return
        if times := self.stages.get(event.stage):
            times.end = event.elapsed
        if span := self._spans.pop(event.stage, None):
            span.end()

    def close(self) -> None:
        """Ends the spans of stages that were broken off."""
        for span in self._spans.values():
            span.end()


class Stages:
    """Watches turns and renders.

    Args:
        metrics: Counts them.
        tracing: Where spans go, or None.
    """

    def __init__(self, metrics: Metrics, tracing: Tracing | None) -> None:
        self._metrics = metrics
        self._tracing = tracing

    @contextmanager
    def watch(self, kind: str) -> Iterator[StageWatch]:
        """Watches one for as long as the context lasts.

        Args:
            kind: `turn` or `render`.
        """
        watch = StageWatch(self._tracing)
        outcome = "failed"
        try:
            yield watch
            outcome = "done"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "cancelled"
            raise
        except VisemeError as error:
            outcome = error.reason.lower()
            raise
        finally:
            watch.close()
            self._metrics.video(kind, outcome, watch.stages.values())
