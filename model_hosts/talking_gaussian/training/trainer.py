"""The training loop: three stages over one clip that stays on the device."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet
from model_hosts.talking_gaussian.preprocess.resize import resized
from model_hosts.talking_gaussian.training import checkpoint
from model_hosts.talking_gaussian.training.frames import Frames
from model_hosts.talking_gaussian.training.initialise import initial_gaussians
from model_hosts.talking_gaussian.training.losses import psnr
from model_hosts.talking_gaussian.training.objective import Objective
from model_hosts.talking_gaussian.training.rasterise import check_device, rasterise
from model_hosts.talking_gaussian.training.scene import Drive, Scene, Shape
from model_hosts.talking_gaussian.training.settings import Settings
from model_hosts.talking_gaussian.training.stages import Sampler, Stage, stages

_WARM_UP = 100
_REPORT_EVERY = 25
_PIVOT = 0.86
"""Height of the point that the torso turns about, in picture heights."""


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes:
        stage: mouth, face or fuse.
        step, steps: Of this stage.
        done, total: Steps of all stages.
        loss: Of the latest step.
        psnr: Of the latest step's frames, dB; in stage mouth of the mouth's inside only.
        seconds_left: Estimate for all stages.
    """

    stage: str
    step: int
    steps: int
    done: int
    total: int
    loss: float
    psnr: float
    seconds_left: float


class Trainer:
    """Trains one avatar.

    Args:
        data: The clip.
        settings: The recipe.
        device: CUDA, or a CPU if there is time.
        on_progress: Called every 25 steps and at the end of each stage.
        checkpoint_path: Where to keep the state; an existing file of the same training is continued.
        checkpoint_every: Steps between checkpoints.

    Raises:
        DeviceUnsuitableError: The device cannot draw.
    """

    def __init__(
        self,
        data: TrainingSet,
        settings: Settings,
        device: torch.device,
        on_progress: Callable[[Progress], None] | None = None,
        checkpoint_path: Path | None = None,
        checkpoint_every: int = 2000,
    ) -> None:
        data = resized(data, settings.width)
        self.data, self.settings, self.device = data, settings, device
        self._on_progress = on_progress
        self._checkpoint_path, self._checkpoint_every = checkpoint_path, checkpoint_every
        height, width = data.size
        self.shape = Shape(
            lip=data.maps.to_lip.shape[1],
            expression=data.maps.to_expression.shape[1],
            focal=data.focal,
            centre=data.centre,
            pivot=(width / 2, _PIVOT * height),
        )
        check_device(device)
        self.scene = Scene(initial_gaussians(data, settings), self.shape, settings).to(device)
        self.frames = Frames(data, device)
        self.objective = Objective(self.frames, settings.weights, data.lip_box, data.eye_box)
        self.seconds: dict[str, float] = {}
        self._sampler = Sampler(data, settings)
        self._stages = stages(settings)

    def run(self) -> None:
        """Runs all stages that are not done yet."""
        resumed = None
        if self._checkpoint_path is not None and self._checkpoint_path.exists():
            resumed = checkpoint.Checkpoint(self._checkpoint_path, self._key())
            resumed.restore_scene(self.scene)
        names = [stage.name for stage in self._stages]
        first = names.index(resumed.stage) if resumed else 0
        for position, stage in enumerate(self._stages[first:], first):
            here = resumed if resumed is not None and position == first else None
            if stage.name == "fuse" and here is None:
                self._remove_faded()
            self._run_stage(stage, here)

    def draw(self, drive: Drive, branches: tuple[str, ...] = ("face", "mouth", "torso")) -> Tensor:
        """Colours, maps and coverage [B, 6, H, W] of driven frames, nothing behind them."""
        splats, _ = self.scene(drive, branches)
        return rasterise(splats, self.shape.focal, self.shape.centre, self.data.size)

    def picture(self, drive: Drive) -> Tensor:
        """Finished pictures [B, 3, H, W] in 0..1."""
        with torch.no_grad():
            return self.objective.compose(self.draw(drive)).clamp(0, 1)

    def _run_stage(self, stage: Stage, resumed: checkpoint.Checkpoint | None) -> None:
        optimiser = self._optimiser(stage)
        start = 0
        if resumed is not None:
            resumed.restore_optimiser(optimiser)
            start = resumed.step
        began = time.monotonic()
        for step in range(start, stage.steps):
            loss, error = self._step(stage, step, optimiser)
            done = step + 1
            if self._on_progress is not None and (done % _REPORT_EVERY == 0 or done == stage.steps):
                speed = (time.monotonic() - began) / (done - start)
                self._on_progress(self._progress(stage, done, float(loss), float(error), speed))
            if self._checkpoint_path is not None and (
                done % self._checkpoint_every == 0 or done == stage.steps
            ):
                checkpoint.save(self._checkpoint_path, self.scene, optimiser, stage.name, done, self._key())
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[stage.name] = time.monotonic() - began

    def _step(self, stage: Stage, step: int, optimiser: torch.optim.Optimizer) -> tuple[Tensor, Tensor]:
        share = step / max(1, stage.steps)
        factor = stage.first_rate * (stage.last_rate / stage.first_rate) ** share
        factor *= min(1.0, (step + 1) / min(_WARM_UP, max(1, stage.steps // 4)))
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * factor
        index = torch.as_tensor(self._sampler.frames(stage, step), device=self.device)
        drive = self._noisy(self.frames.drive(index), stage, step)
        target = self.frames.target(index)
        splats, deltas = self.scene(drive, stage.branches)
        drawn = rasterise(splats, self.shape.focal, self.shape.centre, self.data.size)
        if stage.name == "mouth":
            loss, error = self.objective.mouth(drawn, target)
        else:
            loss, error = self.objective.picture(drawn, target, with_mouth=stage.name == "fuse")
        branches = [self.scene.branches[name] for name in stage.branches]
        loss = loss + self.objective.restraint(branches, deltas)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        return loss.detach(), error

    def _noisy(self, drive: Drive, stage: Stage, step: int) -> Drive:
        seed = np.random.SeedSequence([self.settings.seed, *stage.name.encode(), step]).generate_state(1)[0]
        generator = torch.Generator(self.device).manual_seed(int(seed))

        def noise(value: Tensor, spread: float) -> Tensor:
            return value + spread * torch.randn(value.shape, generator=generator, device=self.device)

        return drive._replace(
            lip=noise(drive.lip, self.settings.lip_noise),
            expression=noise(drive.expression, self.settings.condition_noise),
            condition=noise(drive.condition, self.settings.condition_noise),
        )

    def _optimiser(self, stage: Stage) -> torch.optim.Optimizer:
        rates = self.settings.rates
        groups: list[dict[str, object]] = [
            {"params": list(self.scene.embed.parameters()), "base": rates.network}
        ]
        for name in stage.branches:
            branch = self.scene.branches[name]
            for part in ("xyz", "rgb", "sh", "log_scale", "quat", "opacity_logit"):
                value = getattr(branch, part)
                if isinstance(value, nn.Parameter):
                    groups.append({"params": [value], "base": getattr(rates, part)})
            planes = list(branch.net.planes.parameters())
            rest = [value for key, value in branch.net.named_parameters() if not key.startswith("planes.")]
            groups += [{"params": planes, "base": rates.planes}, {"params": rest, "base": rates.network}]
        return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), eps=1e-15, weight_decay=0.0, fused=True)

    def _remove_faded(self) -> None:
        for branch in self.scene.branches.values():
            visible = torch.sigmoid(branch.opacity_logit.detach()) > self.settings.faded
            if visible.any():
                branch.keep(visible)

    def _progress(self, stage: Stage, done: int, loss: float, error: float, speed: float) -> Progress:
        before = self._stages[: [other.name for other in self._stages].index(stage.name)]
        total = sum(other.steps for other in self._stages)
        all_done = sum(other.steps for other in before) + done
        return Progress(
            stage.name, done, stage.steps, all_done, total, loss, psnr(error), speed * (total - all_done)
        )

    def _key(self) -> str:
        """Names the training: its settings, and the data by its driving values and a few frames."""
        digest = hashlib.sha256(repr(self.settings).encode())
        for part in (self.data.units, self.data.poses, self.data.frames[:: max(1, self.data.count // 8)]):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()
