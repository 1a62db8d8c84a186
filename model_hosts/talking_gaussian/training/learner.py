"""One stage of a training: its optimiser, its steps, and everything of it that a checkpoint must hold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model_hosts.talking_gaussian.training.densify import Densifier
from model_hosts.talking_gaussian.training.optimiser import make_optimiser, moments, restore_moments
from model_hosts.talking_gaussian.training.portrait import Portrait
from model_hosts.talking_gaussian.training.rasterise import rasterise
from model_hosts.talking_gaussian.training.scene import Drive
from model_hosts.talking_gaussian.training.stages import Sampler, Stage

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
            Loss and mean squared error of the frames, still on the device.
        """
        loss, error = self.look(step)
        gradients = [
            value.grad
            for group in self._optimiser.param_groups
            for value in group["params"]
            if value.grad is not None
        ]
        # Zero until a number is not finite, and never again after that: no need to wait for a GPU each time.
        self._trouble += 0 * (loss + torch.nn.utils.get_total_norm(gradients))
        self._set_rates(step, rate)
        # Positions that are not finite crash the sampling of the tri-planes: such a step is not taken.
        self._optimiser.found_inf = (~torch.isfinite(self._trouble)).float()
        self._optimiser.step()
        if self._densifier is not None:
            self._densifier.act(step + 1, self._optimiser)
        return loss, error

    def look(self, step: int) -> tuple[Tensor, Tensor]:
        """The first half of a step: loss and gradients, nothing learnt yet."""
        portrait, stage = self.portrait, self.stage
        frames, objective = portrait.frames, portrait.objective
        chosen = self._sampler.frames(stage, step, portrait.batch)
        index = torch.as_tensor(chosen, device=portrait.device)
        target = frames.target(index)
        splats, deltas = portrait.scene(self._noisy(frames.drive(index), step), stage.branches)
        if self._densifier is not None:
            splats.means.retain_grad()
        drawn = rasterise(splats, portrait.shape.focal, portrait.shape.centre, portrait.data.size)
        if stage.name == "mouth":
            loss, error = objective.mouth(drawn, target)
        else:
            loss, error = objective.picture(drawn, target, with_mouth=stage.name == "fuse")
        branches = [portrait.scene.branches[name] for name in stage.branches]
        loss = loss + objective.restraint(branches, deltas)
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if self._densifier is not None:
            self._densifier.watch(splats.means, portrait.shape.focal)
        return loss.detach(), error

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

    def _begin(self) -> None:
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
            group["lr"] = group["base"] * factor

    def _noisy(self, drive: Drive, step: int) -> Drive:
        settings, device = self.portrait.settings, self.portrait.device
        sequence = np.random.SeedSequence([settings.seed, *self.stage.name.encode(), step])
        generator = torch.Generator(device).manual_seed(int(sequence.generate_state(1)[0]))

        def noise(value: Tensor, spread: float) -> Tensor:
            return value + spread * torch.randn(value.shape, generator=generator, device=device)

        return drive._replace(
            lip=noise(drive.lip, settings.lip_noise),
            expression=noise(drive.expression, settings.condition_noise),
            condition=noise(drive.condition, settings.condition_noise),
        )
