"""The training loop: three stages over one clip, through faults and interruptions."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from model_hosts.talking_gaussian.bundle import Bundle
from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet
from model_hosts.talking_gaussian.training import checkpoint
from model_hosts.talking_gaussian.training.checkpoint import State
from model_hosts.talking_gaussian.training.cuda import DeviceUnsuitableError
from model_hosts.talking_gaussian.training.evaluate import stage_metrics
from model_hosts.talking_gaussian.training.events import (
    Event,
    Note,
    NoteKind,
    Outcome,
    Preview,
    Progress,
    StageMetrics,
)
from model_hosts.talking_gaussian.training.learner import Learner
from model_hosts.talking_gaussian.training.lock import TrainingLock
from model_hosts.talking_gaussian.training.losses import psnr
from model_hosts.talking_gaussian.training.pace import Pace
from model_hosts.talking_gaussian.training.portrait import Portrait
from model_hosts.talking_gaussian.training.settings import Settings
from model_hosts.talking_gaussian.training.sheets import beside_truth, preview_frame
from model_hosts.talking_gaussian.training.stages import Sampler, Stage, stages

_CHECK_EVERY = 20
"""Steps between two looks at whether all numbers are finite; each waits for the device."""
_KEEP_EVERY = 100
"""Steps between two states in memory that a training can roll back to."""
_ROLLBACKS = 3
_Drawn = TypeVar("_Drawn")


class TrainingDiverged(RuntimeError):  # noqa: N818 - reads as a statement, like DatasetInvalid
    """Losses or gradients stopped being finite again and again."""


@dataclass(frozen=True)
class Intervals:
    """Seconds between two events of a kind; `inf` for never, 0 for each step."""

    progress: float = 1.0
    preview: float = 5.0
    checkpoint: float = 20.0


class Trainer(Portrait):
    """Trains one avatar.

    Args:
        data: The clip.
        settings: The recipe.
        device: CUDA, or a CPU if there is time.
        on_event: Hears what happens, in the thread that trains.
        checkpoint_path: Where to keep the state; an existing file of the same training is continued.
        intervals: How often it is kept and told.
        motion: Avatar whose motion it starts with; see `transfer`.

    Attributes:
        seconds: What each stage has taken, over all runs.

    Raises:
        DeviceUnsuitableError: The device cannot draw.
        TransferUnsuitable: It cannot start with that motion.
    """

    def __init__(
        self,
        data: TrainingSet,
        settings: Settings,
        device: torch.device,
        on_event: Callable[[Event], None] | None = None,
        checkpoint_path: Path | None = None,
        intervals: Intervals | None = None,
        motion: Bundle | None = None,
    ) -> None:
        super().__init__(data, settings, device, motion)
        self._motion = motion
        self.seconds: dict[str, float] = {}
        self._tell = on_event or (lambda event: None)
        self._path = checkpoint_path
        self._intervals = intervals or Intervals()
        self._began = dict.fromkeys(("progress", "preview", "checkpoint"), time.monotonic())
        self._sampler = Sampler(self.data, settings)
        shows_mouth = bool(self.data.opening[self.data.training].any())
        self._stages = tuple(stage for stage in stages(settings) if stage.name != "mouth" or shows_mouth)
        self._pace = Pace({stage.name: stage.steps for stage in self._stages})
        self._rate, self._rollbacks = 1.0, 0
        self._disk_failed = False

    def run(self, stop: Callable[[], bool] | None = None) -> Outcome:
        """Runs all stages that are not done yet.

        Args:
            stop: Asked before each step; once it says yes, the state is kept and the run ends.

        Raises:
            TrainingBusy: Another process trains with this checkpoint.
            DatasetInvalid: The checkpoint belongs to another training.
            TrainingDiverged: Rolling back did not help.
            DeviceUnsuitableError: The device has too little memory for a single frame.
        """
        stop = stop or (lambda: False)
        with TrainingLock(self._path) if self._path else contextlib.nullcontext():
            resumed = self._resume()
            if len(self._stages) < len(stages(self.settings)):
                self._note(
                    "stage_skipped",
                    "no training frame shows the inside of the mouth: stage mouth is left out, it stays dark",
                )
            names = [stage.name for stage in self._stages]
            first = names.index(resumed.stage) if resumed else 0
            self._measure_pace(self._stages[first:])
            for position, stage in enumerate(self._stages[first:], first):
                here = resumed if position == first else None
                if stage.name == "fuse" and here is None:
                    self._remove_faded()
                if not self._run_stage(stage, here, stop):
                    return Outcome.STOPPED
        return Outcome.FINISHED

    def _resume(self) -> State | None:
        if self._path is None:
            return None
        state, wrong = checkpoint.latest(self._path, self._key)
        for problem in wrong:
            self._note("checkpoint_damaged", f"{problem}; the one before it is tried")
        if state is None:
            if wrong:
                self._note("started_anew", "no checkpoint can be used, so the training starts anew")
            return None
        self.batch, self._rate, self._rollbacks = state.batch, state.rate, state.rollbacks
        self.seconds = dict(state.seconds)
        self._note("resumed", f"going on from step {state.step} of stage {state.stage}")
        return state

    def _run_stage(self, stage: Stage, resumed: State | None, stop: Callable[[], bool]) -> bool:
        """Whether the stage was done; False if it was stopped."""
        learner = Learner(self, stage, self._sampler)
        step = 0
        if resumed is not None:
            learner.restore(resumed.tensors)
            step = resumed.step
        spent, began = self.seconds.get(stage.name, 0.0), time.monotonic()
        good = _Kept.of(learner, step)
        self._pace.begin(stage.name, began)
        while step < stage.steps:
            if stop():
                step = step if learner.healthy() else good.restore(learner)
                self.seconds[stage.name] = spent + time.monotonic() - began
                self._save(learner, step)
                return False
            result = self._attempt(learner, step)
            if result is None:
                self._halve_batch(learner)
                step = good.restore(learner)
                continue
            step += 1
            self._pace.tick(time.monotonic())
            due = {name for name in self._began if self._is_due(name, ended=step == stage.steps)}
            if not (due or step % _CHECK_EVERY == 0):
                continue
            if not learner.healthy():
                self._slow_down(stage, good.step)
                step = good.restore(learner)
                continue
            self.seconds[stage.name] = spent + time.monotonic() - began
            if step - good.step >= _KEEP_EVERY:
                good = _Kept.of(learner, step)
            if "checkpoint" in due:
                self._save(learner, step)
            if "progress" in due:
                self._tell(self._progress(stage, step, *result))
            if "preview" in due:
                self._tell(self._drawn_beside(learner, functools.partial(self._preview, stage, step)))
        self._finish(stage, learner)
        return True

    def _drawn_beside(self, learner: Learner, draw: Callable[[], _Drawn]) -> _Drawn:
        """What is drawn beside the training, which makes room for it when memory is short."""
        with contextlib.suppress(torch.OutOfMemoryError):
            return draw()
        learner.make_room()
        return draw()

    def _attempt(self, learner: Learner, step: int) -> tuple[Tensor, Tensor] | None:
        """Loss and error of a step, or None if memory is too short for it."""
        try:
            return learner.learn(step, self._rate)
        except torch.OutOfMemoryError:
            # Handled by the caller: the traceback that ends here holds what is to be freed.
            return None

    def _halve_batch(self, learner: Learner) -> None:
        if self.batch == 1:
            raise DeviceUnsuitableError(
                f"the memory of {self.device} is too small for a single frame; "
                "close other programs that use it or train with smaller pictures"
            )
        before, self.batch = self.batch, self.batch // 2
        # Steps that see fewer frames are noisier by the root of their share.
        self._rate *= math.sqrt(self.batch / before)
        learner.make_room()
        self._note("batch_halved", f"memory is short: {self.batch} frames a step from here on, not {before}")

    def _slow_down(self, stage: Stage, step: int) -> None:
        self._rollbacks += 1
        if self._rollbacks > _ROLLBACKS:
            raise TrainingDiverged(
                f"stage {stage.name} gave numbers that are not finite, and halving the learning rates "
                f"{_ROLLBACKS} times did not help; look at the clip's poses and masks, or try another seed"
            )
        self._rate /= 2
        self._note(
            "rolled_back", f"numbers were not finite: back to step {step} with half the learning rates"
        )

    def _measure_pace(self, ahead: tuple[Stage, ...]) -> None:
        """Looks at frames in every stage, learning nothing, so that the first estimate is an honest one."""
        for stage in ahead:
            learner = Learner(self, stage, self._sampler)
            for _ in range(2):  # the first compiles and warms up
                began = time.monotonic()
                fits = self._looked(learner)
                learner.healthy()
                self._pace.measured(stage.name, time.monotonic() - began)
                if not fits:
                    self._halve_batch(learner)

    def _looked(self, learner: Learner) -> bool:
        try:
            learner.look(0)
        except torch.OutOfMemoryError:
            return False
        return True

    def _finish(self, stage: Stage, learner: Learner) -> None:
        began = time.monotonic()
        metrics = self._drawn_beside(learner, lambda: stage_metrics(self, stage.branches))
        self._pace.ended(time.monotonic() - began)
        counts = {name: branch.count for name, branch in self.scene.branches.items()}
        self._tell(StageMetrics(stage.name, metrics, counts, round(self.seconds.get(stage.name, 0.0), 3)))

    def _save(self, learner: Learner, step: int) -> None:
        if self._path is None:
            return
        name = learner.stage.name
        state = State(
            name, step, self.batch, self._rate, self._rollbacks, dict(self.seconds), learner.state()
        )
        try:
            checkpoint.write(self._path, state, self._key)
        except OSError as error:
            if not self._disk_failed:
                reason = error.strerror or str(error)
                self._note(
                    "checkpoint_failed",
                    f"{self._path.name} cannot be written ({reason}); training goes on without it for now",
                )
            self._disk_failed = True
        else:
            self._disk_failed = False

    def _is_due(self, name: str, ended: bool) -> bool:
        """Whether it is time for an event, as at the end of each stage; begins the next interval."""
        now, interval = time.monotonic(), getattr(self._intervals, name)
        if interval == math.inf or not (ended or now - self._began[name] >= interval):
            return False
        self._began[name] = now
        return True

    def _remove_faded(self) -> None:
        for branch in self.scene.branches.values():
            visible = torch.sigmoid(branch.opacity_logit.detach()) > self.settings.faded
            if visible.any():
                branch.take(visible.nonzero()[:, 0])

    def _progress(self, stage: Stage, step: int, loss: Tensor, error: Tensor) -> Progress:
        before = self._stages[: self._stages.index(stage)]
        return Progress(
            stage=stage.name,
            step=step,
            steps=stage.steps,
            done=sum(other.steps for other in before) + step,
            total=sum(other.steps for other in self._stages),
            loss=float(loss),
            psnr=psnr(float(error)),
            seconds_left=round(self._pace.left(step), 2),
        )

    def _preview(self, stage: Stage, step: int) -> Preview:
        index = preview_frame(self.data)
        return Preview(stage.name, step, index, beside_truth(self, index))

    def _note(self, kind: NoteKind, message: str) -> None:
        self._tell(Note(kind, message))

    @functools.cached_property
    def _key(self) -> str:
        """Names the training: settings, what it started with, the data by driving values and a few frames."""
        digest = hashlib.sha256(repr(self.settings).encode())
        if self._motion is not None:
            digest.update(self._motion.info.to_json().encode())
        for part in (self.data.units, self.data.poses, self.data.frames[:: max(1, self.data.count // 8)]):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


class _Kept(NamedTuple):
    """A state in memory that can be gone back to."""

    step: int
    tensors: dict[str, Tensor]

    @staticmethod
    def of(learner: Learner, step: int) -> _Kept:
        return _Kept(step, {name: value.clone() for name, value in learner.state().items()})

    def restore(self, learner: Learner) -> int:
        """Goes back; returns the step."""
        learner.restore(self.tensors)
        return self.step
