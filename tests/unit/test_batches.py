"""Frames drawn in batches come out whole, in order and only while somebody wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_hosts.sdk import Cancellation
from model_hosts.sdk.cancellation import Cancelled
from model_hosts.talking_gaussian.driving.state import FrameState
from model_hosts.talking_gaussian.rendering.batches import BatchPipeline
from model_hosts.talking_gaussian.rendering.clock import CpuClock
from model_hosts.talking_gaussian.rendering.rasteriser import YuvImage


class Call:
    """A call whose caller stays on the line."""

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return True


class NumberPainter:
    """Draws the first lip value of a frame, always on the same memory, as a painter may."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._image = np.zeros((3, 2), np.uint8)

    def draw_yuv(self, frames: FrameState) -> Iterator[YuvImage]:
        self.sizes.append(len(frames))
        for value in frames.lip[:, 0]:
            self._image[:] = int(value) % 256
            yield self._image


def numbered(first: int, count: int) -> FrameState:
    lip = np.repeat(np.arange(first, first + count, dtype=np.float32)[:, None], 2, 1)
    return FrameState(lip, *(np.zeros((count, width), np.float32) for width in (3, 6, 4)))


def pipeline_of(painter: NumberPainter) -> tuple[BatchPipeline, Cancellation]:
    cancellation = Cancellation(cast(grpc.ServicerContext, Call()))
    return BatchPipeline(painter, CpuClock(), cancellation), cancellation


@given(st.lists(st.tuples(st.integers(0, 90), st.booleans()), max_size=6))
def test_every_frame_comes_out_once_and_in_order(pieces: list[tuple[int, bool]]) -> None:
    painter = NumberPainter()
    pipeline, _ = pipeline_of(painter)
    seen: list[int] = []
    total = 0
    for count, ask in pieces:
        pipeline.add(numbered(total, count))
        total += count
        if ask:
            seen += [int(image[0, 0]) for image in pipeline.images(drain=False)]
    seen += [int(image[0, 0]) for image in pipeline.images(drain=True)]
    assert seen == [number % 256 for number in range(total)]
    assert all(1 <= size <= 32 for size in painter.sizes)


def test_the_first_batch_is_small_so_that_the_first_fragment_leaves_early() -> None:
    painter = NumberPainter()
    pipeline, _ = pipeline_of(painter)
    pipeline.add(numbered(0, 100))
    assert sum(1 for _ in pipeline.images(drain=True)) == 100
    assert painter.sizes == [8, 32, 32, 28]


def test_nothing_more_is_drawn_for_a_caller_who_has_gone() -> None:
    painter = NumberPainter()
    pipeline, cancellation = pipeline_of(painter)
    pipeline.add(numbered(0, 100))
    images = pipeline.images(drain=True)
    assert sum(1 for _, _ in zip(range(8), images, strict=False)) == 8
    cancellation.set()
    with pytest.raises(Cancelled):
        next(images)
    pipeline.close()
    assert painter.sizes == [8]
