"""Draws frames on several threads at once and hands them out in order.

Frames do not depend on each other, so each thread deforms and rasterises a frame of its own: no step waits
for another, and both cores stay busy whatever the steps cost. Encoding happens in order, in the caller's
thread, while the next frames are drawn.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from model_hosts.sdk import Cancellation
from model_hosts.talking_gaussian.driving.state import FrameState
from model_hosts.talking_gaussian.model.deformation import FrameInput
from model_hosts.talking_gaussian.rendering.avatar import Avatar, Desk
from model_hosts.talking_gaussian.rendering.clock import CpuClock
from model_hosts.talking_gaussian.rendering.rasteriser import YuvImage

_POLL = 0.02


@dataclass(frozen=True)
class _Drawn:
    image: YuvImage
    deform_seconds: float
    raster_seconds: float


class Pipeline:
    """Frames of one render, in work and waiting.

    Args:
        avatar: To draw.
        executor: Threads that draw; other renders may share them.
        threads: How many threads the executor has.
        clock: Where CPU time is booked.
        cancellation: Ends the waiting.
    """

    def __init__(
        self,
        avatar: Avatar,
        executor: ThreadPoolExecutor,
        threads: int,
        clock: CpuClock,
        cancellation: Cancellation,
    ) -> None:
        self._avatar = avatar
        self._executor = executor
        # One frame more than threads, so that none of them waits while a frame is encoded.
        self._window = threads + 1
        self._clock = clock
        self._cancellation = cancellation
        self._waiting: deque[FrameInput] = deque()
        self._working: deque[tuple[Future[_Drawn], Desk]] = deque()

    def add(self, state: FrameState) -> None:
        """Takes the next frames."""
        columns = zip(state.lip, state.expression, state.pose, state.torso_track, strict=True)
        self._waiting.extend(FrameInput(*column) for column in columns)
        self._start()

    def images(self, drain: bool) -> Iterator[YuvImage]:
        """Finished frames in order; an image is only good until the next is asked for.

        Args:
            drain: Wait for all frames; otherwise stop when the last ones are in work.

        Raises:
            Cancelled: The caller has gone.
        """
        while self._waiting or (drain and self._working):
            future, desk = self._working.popleft()
            drawn = self._result(future)
            self._clock.seconds["deform"] += drawn.deform_seconds
            self._clock.seconds["raster"] += drawn.raster_seconds
            yield drawn.image
            self._avatar.return_desk(desk)
            self._start()

    def close(self) -> None:
        """Stops drawing what has not been started."""
        self._waiting.clear()
        for future, desk in self._working:
            if future.cancel():
                self._avatar.return_desk(desk)
        self._working.clear()

    def _start(self) -> None:
        while self._waiting and len(self._working) < self._window:
            desk = self._avatar.take_desk()
            frame = self._waiting.popleft()
            self._working.append((self._executor.submit(self._draw, frame, desk), desk))

    def _draw(self, frame: FrameInput, desk: Desk) -> _Drawn:
        start = time.thread_time()
        splats = self._avatar.deformer.pose(frame, desk.workspace)
        posed = time.thread_time()
        image = desk.rasteriser.draw_yuv(splats)
        return _Drawn(image, posed - start, time.thread_time() - posed)

    def _result(self, future: Future[_Drawn]) -> _Drawn:
        while True:
            self._cancellation.check()
            try:
                return future.result(_POLL)
            except TimeoutError:
                continue
