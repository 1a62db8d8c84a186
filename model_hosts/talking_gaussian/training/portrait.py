"""An avatar while it is learnt, and the clip it is learnt from, on one device: what draws it."""

from __future__ import annotations

import torch
from torch import Tensor

from model_hosts.talking_gaussian.bundle import Bundle
from model_hosts.talking_gaussian.preprocess.dataset import TORSO_PIVOT, TrainingSet
from model_hosts.talking_gaussian.preprocess.resize import resized
from model_hosts.talking_gaussian.training.frames import Frames
from model_hosts.talking_gaussian.training.initialise import initial_gaussians
from model_hosts.talking_gaussian.training.objective import Objective
from model_hosts.talking_gaussian.training.rasterise import check_device, rasterise
from model_hosts.talking_gaussian.training.scene import Drive, Scene, Shape
from model_hosts.talking_gaussian.training.settings import Settings
from model_hosts.talking_gaussian.training.transfer import adopt

BRANCHES = ("face", "mouth", "torso")


class Portrait:
    """Draws the avatar as it is now.

    Args:
        data: The clip; made smaller when the recipe says so.
        settings: The recipe.
        device: Where it is learnt.
        motion: Avatar whose motion it starts with; see `transfer`.

    Attributes:
        batch: Frames that are drawn together; fewer than the recipe's when memory is short.

    Raises:
        DeviceUnsuitableError: The device cannot draw.
        TransferUnsuitable: It cannot start with that motion.
    """

    def __init__(
        self, data: TrainingSet, settings: Settings, device: torch.device, motion: Bundle | None = None
    ) -> None:
        data = resized(data, settings.width)
        self.data, self.settings, self.device = data, settings, device
        self.batch = settings.batch
        height, width = data.size
        self.shape = Shape(
            lip=data.maps.to_lip.shape[1],
            expression=data.maps.to_expression.shape[1],
            focal=data.focal,
            centre=data.centre,
            pivot=(width / 2, TORSO_PIVOT * height),
        )
        check_device(device)
        if device.type == "cuda":
            # Ten bits of mantissa are enough for the networks; nothing else here multiplies matrices.
            torch.set_float32_matmul_precision("high")
        self.frames = Frames(data, device)
        plate = self.frames.plate if settings.learn_plate else None
        self.scene = Scene(initial_gaussians(data, settings), self.shape, settings, plate).to(device)
        if motion is not None:
            adopt(self.scene, data, motion, self.frames.drive(torch.tensor([data.key], device=device)))
        self.objective = Objective(
            self.frames, settings.weights, data.lip_box, data.eye_box, self.scene.plate
        )

    def draw(self, drive: Drive, branches: tuple[str, ...] = BRANCHES) -> Tensor:
        """Colours, maps and coverage [B, 6, H, W] of driven frames, nothing behind them."""
        splats, _ = self.scene(drive, branches)
        return rasterise(splats, self.shape.focal, self.shape.centre, self.data.size)

    def picture(self, drive: Drive, branches: tuple[str, ...] = BRANCHES) -> Tensor:
        """Finished pictures [B, 3, H, W] in 0..1."""
        with torch.no_grad():
            return self.objective.compose(self.draw(drive, branches)).clamp(0, 1)
