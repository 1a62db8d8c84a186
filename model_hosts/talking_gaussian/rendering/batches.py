"""Frames of one render, drawn in batches on a GPU: what `pipeline.Pipeline` is for processors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from model_hosts.sdk import Cancellation
from model_hosts.talking_gaussian.driving.state import FrameState
from model_hosts.talking_gaussian.rendering.clock import CpuClock
from model_hosts.talking_gaussian.rendering.rasteriser import YuvImage

_FIRST = 8
_MOST = 32


class Painter(Protocol):
    """Draws frames of one avatar, many at once. Threads may share it."""

    def draw_yuv(self, frames: FrameState) -> Iterator[YuvImage]:
        """The frames in order, as `Rasteriser.draw_yuv` gives them."""
        ...


class BatchPipeline:
    """Frames of one render that wait; they are drawn in the thread that asks for them.

    Args:
        painter: Draws.
        clock: Where CPU time is booked.
        cancellation: Ends the drawing between batches.
    """

    def __init__(self, painter: Painter, clock: CpuClock, cancellation: Cancellation) -> None:
        self._painter, self._clock, self._cancellation = painter, clock, cancellation
        self._waiting: list[FrameState] = []
        # A small batch first, so that the first fragment leaves early.
        self._size = _FIRST

    def add(self, state: FrameState) -> None:
        """Takes the next frames."""
        if len(state):
            self._waiting.append(state)

    def images(self, drain: bool) -> Iterator[YuvImage]:
        """Finished frames in order; an image is only good until the next is asked for.

        Args:
            drain: For the interface of `Pipeline`: nothing is ever in work when the caller has its images.

        Raises:
            Cancelled: The caller has gone.
        """
        del drain
        while self._waiting:
            waiting = FrameState.concatenate(self._waiting)
            batch, rest = waiting[: self._size], waiting[self._size :]
            self._waiting = [rest] if len(rest) else []
            self._size = _MOST
            self._cancellation.check()
            drawn = self._painter.draw_yuv(batch)
            with self._clock.measure("raster"):
                first = next(drawn)
            yield first
            yield from drawn

    def close(self) -> None:
        """Forgets what has not been drawn."""
        self._waiting.clear()
