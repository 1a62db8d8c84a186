"""The parts of a step as CUDA graphs: one launch each instead of hundreds.

A step of small kernels waits for the processor that launches them; recorded once and repeated, it takes the
time that the GPU needs (37 ms a step without, see benchmarks/train).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model_hosts.talking_gaussian.training.portrait import Portrait
from model_hosts.talking_gaussian.training.stages import Stage
from model_hosts.talking_gaussian.training.step import Step

_WARM_UPS = 2
"""Steps before anything is recorded: libraries and kernels are loaded in the first."""


_ROOM = 1.25
"""Memory that must be free to record a step, as a share of what it needed when it was not recorded."""


class RecordedStep(Step):
    """A `Step` whose parts are recorded at the first step and repeated from then on.

    It is good for as long as the learnt tensors stay the same ones.
    """

    def __init__(
        self, portrait: Portrait, stage: Stage, optimiser: torch.optim.Optimizer, trouble: Tensor
    ) -> None:
        super().__init__(portrait, stage, optimiser, trouble)
        self._graphs: dict[str, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None
        self._recording = False

    def begin(self, chosen: np.ndarray[Any, np.dtype[np.int64]], generator: torch.Generator) -> None:
        """See `Step`."""
        super().begin(chosen, generator)
        if not self._graphs:
            self._record()

    def move(self) -> None:
        """See `Step`."""
        self._run("move", super().move)

    def judge(self) -> None:
        """See `Step`."""
        self._run("judge", super().judge)

    def back(self) -> None:
        """See `Step`."""
        self._run("back", super().back)

    def learn(self) -> None:
        """See `Step`."""
        self._run("learn", super().learn)

    def _run(self, name: str, part: Callable[[], None]) -> None:
        if self._recording:
            self._capture(name, part)
        if name in self._graphs:
            self._graphs[name].replay()
        else:
            part()

    def _record(self) -> None:
        # Nothing accumulates here, so it does not matter which stream has seen a parameter first.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                self.look()
            self.refuse()
        torch.cuda.current_stream().wait_stream(aside)
        needed = torch.cuda.max_memory_allocated() - before
        self.forget()
        self._make_sure_of(needed)
        self._pool = torch.cuda.graph_pool_handle()
        self._recording = True
        try:
            self.look()
        finally:
            self._recording = False
        self._capture("learn", super().learn)

    def _make_sure_of(self, needed: int) -> None:
        """A recording that runs out of memory keeps what it had for good: it must not begin."""
        # What the graphs hold comes from a pool of their own.
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        if free < _ROOM * needed:
            raise torch.OutOfMemoryError(
                f"a step needs {needed >> 20} MiB and {free >> 20} MiB of GPU memory are free"
            )

    def _capture(self, name: str, part: Callable[[], None]) -> None:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            part()
        self._graphs[name] = graph

    def _hand_drawn(self, drawn: Tensor) -> None:
        if "judge" in self._graphs:
            self._drawn.copy_(drawn)
        else:
            self._drawn = drawn.clone()

    def _hand_gradients(self, gradients: Sequence[Tensor]) -> None:
        if "back" in self._graphs:
            for kept, value in zip(self._gradients, gradients, strict=True):
                kept.copy_(value)
        else:
            self._gradients = [value.clone() for value in gradients]
