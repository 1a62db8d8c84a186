"""One stage of a training: its optimiser, its steps, and everything of it that a checkpoint must hold."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from model_hosts.talking_gaussian.training.densify import Densifier
from model_hosts.talking_gaussian.training.graphs import RecordedStep
from model_hosts.talking_gaussian.training.optimiser import make_optimiser, moments, restore_moments
from model_hosts.talking_gaussian.training.portrait import Portrait
from model_hosts.talking_gaussian.training.stages import Sampler, Stage
from model_hosts.talking_gaussian.training.step import Step

_WARM_UP = 100
_MODEL = "model."


class Learner:
    """Learns a stage step by step.

    Whatever is drawn by lot depends on seed, stage and step only, so no generator's state has to be kept.

    Args:
        portrait: What is learnt.
        stage: Which stage.
        sampler: Chooses the frames.
    """

    def __init__(self, portrait: Portrait, stage: Stage, sampler: Sampler) -> None:
        self.portrait, self.stage, self._sampler = portrait, stage, sampler
        self._begin()

    def learn(self, step: int, rate: float) -> tuple[Tensor, Tensor]:
        """Does a step.

        Args:
            step: Which of the stage, from 0.
            rate: Factor of all learning rates.

        Returns:
            Loss and mean squared error of the frames, still on the device; good until the next step.
        """
        loss, error = self.look(step)
        self._set_rates(step, rate)
        work = self._work
        work.learn()
        if self._densifier is not None:
            self._densifier.watch(work.splats.means.detach(), work.means_gradient, self.portrait.shape.focal)
            if self._densifier.act(step + 1, self._optimiser):
                self._forget_work()
        return loss, error

    def look(self, step: int) -> tuple[Tensor, Tensor]:
        """The first half of a step: loss and gradients, nothing learnt yet."""
        portrait = self.portrait
        if self._work.batch != portrait.batch:
            self._forget_work()
        chosen = self._sampler.frames(self.stage, step, portrait.batch)
        sequence = np.random.SeedSequence([portrait.settings.seed, *self.stage.name.encode(), step])
        generator = torch.Generator(portrait.device).manual_seed(int(sequence.generate_state(1)[0]))
        work = self._work
        work.begin(chosen, generator)
        work.look()
        return work.loss, work.error

    def healthy(self) -> bool:
        """Whether every loss and gradient since the last restore was finite; waits for the device."""
        return bool(torch.isfinite(self._trouble))

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as named tensors (not copies)."""
        scene = self.portrait.scene
        tensors = {_MODEL + name: value.detach() for name, value in scene.state_dict().items()}
        tensors |= moments(self._optimiser, scene)
        if self._densifier is not None:
            tensors |= self._densifier.state()
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        scene = self.portrait.scene
        scene.restore(
            {key.removeprefix(_MODEL): value for key, value in state.items() if key.startswith(_MODEL)}
        )
        self._begin()
        restore_moments(self._optimiser, scene, state)
        if self._densifier is not None:
            self._densifier.restore(state)

    def make_room(self) -> None:
        """Gives memory back that is kept only to be fast."""
        self._forget_work()
        if self.portrait.device.type == "cuda":
            torch.cuda.empty_cache()

    @functools.cached_property
    def _work(self) -> Step:
        kind = RecordedStep if self.portrait.device.type == "cuda" else Step
        return kind(self.portrait, self.stage, self._optimiser, self._trouble)

    def _forget_work(self) -> None:
        """After this the next step is one on the tensors as they are then."""
        self.__dict__.pop("_work", None)

    def _begin(self) -> None:
        self._forget_work()
        portrait, stage, settings = self.portrait, self.stage, self.portrait.settings
        self._optimiser = make_optimiser(portrait.scene, stage.branches, settings.rates)
        self._trouble: Tensor = torch.zeros((), device=portrait.device)
        self._densifier: Densifier | None = None
        if settings.growth is not None:
            head = float(portrait.data.pose_statistics.mean[2, 3])
            depths = {"face": head, "mouth": head, "torso": float(portrait.scene.torso.centre[2])}
            pixels = {name: depth / portrait.shape.focal for name, depth in depths.items()}
            self._densifier = Densifier(
                portrait.scene, stage.branches, settings.growth, stage.steps, settings.faded, pixels
            )

    def _set_rates(self, step: int, rate: float) -> None:
        stage = self.stage
        factor = (
            rate * stage.first_rate * (stage.last_rate / stage.first_rate) ** (step / max(1, stage.steps))
        )
        factor *= min(1.0, (step + 1) / min(_WARM_UP, max(1, stage.steps // 4)))
        for group in self._optimiser.param_groups:
            group["lr"].fill_(group["base"] * factor)
