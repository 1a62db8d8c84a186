"""What each stage minimises."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from model_hosts.talking_gaussian.training.frames import Frames, Target
from model_hosts.talking_gaussian.training.losses import Structure, crop, masked_mean, pyramid
from model_hosts.talking_gaussian.training.scene import Branch, Delta
from model_hosts.talking_gaussian.training.settings import Weights

_THIN = 4.0
"""Gaussians longer than this many times their middle width show as needles when they turn."""


class Objective:
    """Turns drawn channels into a loss.

    Args:
        frames: The clip; gives the plate and the device.
        weights: Of the terms.
        lip_box, eye_box: Width and height of the boxes in pixels.
        plate: Instead of the clip's, if it is learnt.
    """

    def __init__(
        self,
        frames: Frames,
        weights: Weights,
        lip_box: tuple[int, int],
        eye_box: tuple[int, int],
        plate: Tensor | None = None,
    ) -> None:
        self.weights = weights
        self.plate = frames.plate if plate is None else plate
        self.lip_box, self.eye_box = lip_box, eye_box
        self.structure = Structure(frames.device)

    def compose(self, drawn: Tensor) -> Tensor:
        """The picture over the plate, [B, 3, H, W]."""
        return self._over(drawn[:, :3], drawn[:, 5:])

    def _over(self, colour: Tensor, alpha: Tensor) -> Tensor:
        return colour + (1 - alpha) * self.plate

    def mouth(self, drawn: Tensor, target: Target) -> tuple[Tensor, Tensor]:
        """Stage mouth: the mouth alone, judged where its inside is seen.

        It may continue behind the lips, but not beyond the head.

        Returns:
            The loss and the mean squared error there.
        """
        box = self.lip_box
        image = crop(self.compose(drawn), target.lip_corner, box)
        wanted, alpha = crop(target.image, target.lip_corner, box), crop(drawn[:, 5:], target.lip_corner, box)
        inside = crop(target.mouth, target.lip_corner, box)
        difference = image - wanted
        # Outside of its region the truth shows lips: put the drawn pixels there, so that no term sees them.
        wanted = torch.where(inside > 0, wanted, image.detach())
        loss = masked_mean(difference.abs(), inside)
        loss = loss + self.weights.pyramid * pyramid(image, wanted, inside)
        loss = loss + 0.2 * (1 - self.structure(image, wanted)).mean()
        loss = loss + 0.2 * masked_mean(1 - alpha, inside)
        loss = loss + self.weights.maps * masked_mean(drawn[:, 5:], 1 - target.head)
        return loss, masked_mean(difference.detach() ** 2, inside)

    def picture(self, drawn: Tensor, target: Target, with_mouth: bool) -> tuple[Tensor, Tensor]:
        """Stages face (the mouth's inside left out) and fuse: the whole picture.

        Returns:
            The loss and the mean squared error.
        """
        weights = self.weights
        seen = torch.ones_like(target.mouth) if with_mouth else 1 - target.mouth
        # Split once: the gradient of each slice would be a picture of zeros with the slice filled in.
        colour, head, mouth, alpha = drawn.split((3, 1, 1, 1), 1)
        image = self._over(colour, alpha)
        wanted = target.image if with_mouth else torch.where(seen > 0, target.image, image.detach())
        difference = (image - wanted).abs()
        loss = (1 - weights.structure) * difference.mean()
        loss = loss + weights.structure * (1 - self.structure(image, wanted)).mean()
        boxes = [(target.lip_corner, self.lip_box, weights.lips)]
        boxes += [(target.eye_corners[:, side], self.eye_box, weights.eyes) for side in (0, 1)]
        for corner, box, weight in boxes:
            near, truth = crop(image, corner, box), crop(wanted, corner, box)
            loss = loss + weight * (near - truth).abs().mean()
            loss = loss + weight * weights.pyramid / weights.lips * pyramid(near, truth)
        loss = loss + self._maps(head, mouth, alpha, target, with_mouth)
        return loss, (difference.detach() ** 2).mean()

    def _maps(self, head: Tensor, mouth: Tensor, alpha: Tensor, target: Target, with_mouth: bool) -> Tensor:
        """Who draws what: the head its region, the mouth the inside, the person everything but the plate."""
        own = target.head if with_mouth else target.head * (1 - target.mouth)
        person = target.person if with_mouth else target.person * (1 - target.mouth)
        head_error = (head - own).abs() * target.head_known
        person_error = (alpha - person).abs() * (1 if with_mouth else 1 - target.mouth)
        loss = self.weights.maps * (head_error.mean() + person_error.mean())
        near = crop(head_error, target.lip_corner, self.lip_box)
        loss = loss + self.weights.box_maps * near.mean()
        if with_mouth:
            mouth_error = (mouth - target.mouth).abs()
            near = crop(mouth_error, target.lip_corner, self.lip_box)
            loss = loss + 0.5 * self.weights.maps * mouth_error.mean() + self.weights.box_maps * near.mean()
        return loss

    def restraint(self, branches: list[Branch], deltas: list[Delta]) -> Tensor:
        """Keeps what need not move at rest, and Gaussians small and round."""
        weights = self.weights
        total = torch.zeros((), device=self.plate.device)
        for branch, delta in zip(branches, deltas, strict=True):
            total = total + weights.move * delta.position.abs().mean()
            total = total + weights.change * (delta.log_scale.abs().mean() + delta.colour.abs().mean())
            # What no frame shows keeps its first colour; without this it drifts to fire and snow.
            total = total + weights.anchor * (branch.rgb - branch.first_rgb).abs().mean()
            large = functional.relu(branch.log_scale - math.log(weights.size_limit))
            longest, shortest = branch.log_scale.amax(-1), branch.log_scale.amin(-1)
            middle = branch.log_scale.sum(-1) - longest - shortest
            needle = functional.relu(longest - middle - math.log(_THIN))
            total = total + weights.size * large.mean() + weights.thinness * needle.mean()
        return total
