"""One step of a stage, in parts that a GPU can repeat.

A step moves the Gaussians (`move`), draws them, judges the picture (`judge`), goes back through the drawing
and then through the networks (`back`), and learns (`learn`). Drawing decides its own sizes, so it runs anew
each time; the other parts do the same work on the same memory in every step, which `graphs` records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_hosts.talking_gaussian.training.portrait import Portrait
from model_hosts.talking_gaussian.training.rasterise import Splats, rasterise
from model_hosts.talking_gaussian.training.scene import Drive
from model_hosts.talking_gaussian.training.stages import Stage

_LEFT = (
    "splats",
    "means_gradient",
    "loss",
    "error",
    "_moved",
    "_restraint",
    "_drawn",
    "_drawn_gradient",
    "_gradients",
)


class Step:
    """The parts of a step and what they hand to each other.

    Args:
        portrait: What is learnt.
        stage: Which stage.
        optimiser: Of the stage.
        trouble: Scalar that stops being a finite number with the first loss or gradient that is none.

    Attributes:
        batch: Frames a step.
        splats: What the last step drew.
        means_gradient: Of the loss by the drawn centres, [B, N, 3].
        loss: Of the last step, on the device.
        error: Mean squared error of its frames, on the device.
    """

    splats: Splats
    means_gradient: Tensor
    loss: Tensor
    error: Tensor

    def __init__(
        self, portrait: Portrait, stage: Stage, optimiser: torch.optim.Optimizer, trouble: Tensor
    ) -> None:
        self._portrait, self._stage, self._optimiser, self._trouble = portrait, stage, optimiser, trouble
        self.batch = portrait.batch
        shape, frames = portrait.shape, portrait.frames
        self._widths = (shape.lip, shape.expression, frames.condition.shape[1])
        self._index = torch.zeros(self.batch, dtype=torch.int64, device=portrait.device)
        self._noise = torch.zeros(self.batch, sum(self._widths), device=portrait.device)
        self._plate = portrait.scene.plate if "torso" in stage.branches else None
        self._learnt = [
            value for group in optimiser.param_groups for value in group["params"] if value is not self._plate
        ]

    def begin(self, chosen: npt.NDArray[np.int64], generator: torch.Generator) -> None:
        """Chooses the frames (indices [B]) and draws the noise of the next step."""
        self._index.copy_(torch.from_numpy(chosen))
        torch.randn(self._noise.shape, generator=generator, device=self._noise.device, out=self._noise)

    def look(self) -> None:
        """Loss and gradients, nothing learnt yet."""
        self.move()
        shape = self._portrait.shape
        drawn = rasterise(self.splats, shape.focal, shape.centre, self._portrait.data.size)
        self._hand_drawn(drawn.detach())
        self.judge()
        gradients = torch.autograd.grad(drawn, list(self.splats), self._drawn_gradient)
        self.means_gradient = gradients[0]
        self._hand_gradients(gradients)
        self.back()

    def move(self) -> None:
        """From driving values to Gaussians in camera space."""
        portrait, stage = self._portrait, self._stage
        splats, deltas = portrait.scene(self._noisy(portrait.frames.drive(self._index)), stage.branches)
        branches = [portrait.scene.branches[name] for name in stage.branches]
        self._restraint = portrait.objective.restraint(branches, deltas)
        self._moved = splats
        self.splats = Splats(*(value.detach().requires_grad_() for value in splats))

    def judge(self) -> None:
        """From the drawn channels to the loss, and back to them."""
        objective, stage = self._portrait.objective, self._stage
        drawn = self._drawn.detach().requires_grad_()
        target = self._portrait.frames.target(self._index)
        if stage.name == "mouth":
            loss, self.error = objective.mouth(drawn, target)
        else:
            loss, self.error = objective.picture(drawn, target, with_mouth=stage.name == "fuse")
        plate = [] if self._plate is None else [self._plate]
        self._drawn_gradient, *rest = torch.autograd.grad(loss, [drawn, *plate])
        for value, gradient in zip(plate, rest, strict=True):
            value.grad = gradient
        self.loss = loss.detach() + self._restraint.detach()

    def back(self) -> None:
        """From the gradients of the Gaussians to those of everything that is learnt."""
        gradients = torch.autograd.grad(
            [*self._moved, self._restraint],
            self._learnt,
            [*self._gradients, torch.ones_like(self._restraint)],
        )
        for value, gradient in zip(self._learnt, gradients, strict=True):
            value.grad = gradient

    def learn(self) -> None:
        """Takes the step, unless a number is not finite."""
        every = self._learnt if self._plate is None else [*self._learnt, self._plate]
        norm = torch.nn.utils.get_total_norm([value.grad for value in every if value.grad is not None])
        # Zero until a number is not finite, and never again after that: no need to wait for a GPU each time.
        self._trouble += 0 * (self.loss + norm)
        # Positions that are not finite crash the sampling of the tri-planes: such a step is not taken.
        self._optimiser.found_inf = (~torch.isfinite(self._trouble)).float()
        self._optimiser.step()

    def refuse(self) -> None:
        """Does the work of `learn` without learning anything."""
        self._trouble.fill_(math.nan)
        Step.learn(self)
        self._trouble.zero_()

    def forget(self) -> None:
        """Gives back what the last step left, its gradients too."""
        for name in _LEFT:
            self.__dict__.pop(name, None)
        for group in self._optimiser.param_groups:
            for value in group["params"]:
                value.grad = None

    def _hand_drawn(self, drawn: Tensor) -> None:
        self._drawn = drawn

    def _hand_gradients(self, gradients: Sequence[Tensor]) -> None:
        self._gradients: Sequence[Tensor] = gradients

    def _noisy(self, drive: Drive) -> Drive:
        settings = self._portrait.settings
        lip, expression, condition = self._noise.split(self._widths, 1)
        return drive._replace(
            lip=drive.lip + settings.lip_noise * lip,
            expression=drive.expression + settings.condition_noise * expression,
            condition=drive.condition + settings.condition_noise * condition,
        )
