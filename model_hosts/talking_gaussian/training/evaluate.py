"""How well a trained avatar reproduces frames it has not seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from model_hosts.talking_gaussian.training.losses import crop
from model_hosts.talking_gaussian.training.portrait import Portrait

_LEAST_PIXELS = 20
_STAGE_FRAMES = 24
"""Held-out frames that are measured at the end of a stage, about."""


def evaluate(portrait: Portrait, chosen: npt.NDArray[np.int64]) -> dict[str, float]:
    """Mean of the per-frame figures over frames, on pictures rounded to 8 bits.

    Args:
        portrait: Holds the scene.
        chosen: Indices of the frames.

    Returns:
        psnr and ssim of the whole frame; psnr of head (face, hair, mouth), lips (the box around them), mouth
        (its inside, in frames that show it) and torso; sharpness of head and lips: fine contrast as a share
        of the truth's. A region that no frame shows is left out.
    """
    sums: dict[str, list[float]] = {}
    batch = portrait.batch
    for start in range(0, len(chosen), batch):
        index = torch.as_tensor(chosen[start : start + batch], device=portrait.device)
        image = (portrait.picture(portrait.frames.drive(index)) * 255).round() / 255
        target = portrait.frames.target(index)
        error = (image - target.image) ** 2
        everywhere = torch.ones_like(target.head)
        box = portrait.data.lip_box
        lips = crop(error, target.lip_corner, box)
        regions = {
            "psnr": (error, everywhere),
            "head": (error, target.head),
            "lips": (lips, torch.ones_like(lips[:, :1])),
            "mouth": (error, target.mouth),
            "torso": (error, target.person * (1 - target.head)),
        }
        for name, (squared, mask) in regions.items():
            sums.setdefault(name, []).extend(_decibels(squared, mask))
        fine, wanted = _fine_contrast(image), _fine_contrast(target.image)
        if target.head.any():
            share = (fine * target.head).sum() / (wanted * target.head).sum().clamp_min(1e-6)
            sums.setdefault("head_sharpness", []).append(float(share))
        fine, wanted = (crop(value, target.lip_corner, box).sum() for value in (fine, wanted))
        sums.setdefault("lips_sharpness", []).append(float(fine / wanted.clamp_min(1e-6)))
        sums.setdefault("ssim", []).extend(
            portrait.objective.structure(image, target.image).mean((1, 2, 3)).tolist()
        )
    return {name: round(float(np.mean(values)), 4) for name, values in sums.items() if values}


def stage_metrics(portrait: Portrait, branches: tuple[str, ...]) -> dict[str, float]:
    """PSNR of what a stage draws, in a few held-out frames and only where it is meant to be right.

    Args:
        portrait: Holds the scene.
        branches: What the stage draws. Without the face only the mouth's inside is looked at, without the
            mouth everything else.

    Returns:
        Some of psnr (whole frame), head, lips and mouth, in dB.
    """
    held = portrait.data.held_out
    chosen = held[:: max(1, len(held) // _STAGE_FRAMES)]
    sums: dict[str, list[float]] = {}
    for start in range(0, len(chosen), portrait.batch):
        index = torch.as_tensor(chosen[start : start + portrait.batch], device=portrait.device)
        target = portrait.frames.target(index)
        error = (portrait.picture(portrait.frames.drive(index), branches) - target.image) ** 2
        regions: dict[str, tuple[Tensor, Tensor]] = {}
        if "mouth" in branches:
            regions["mouth"] = (error, target.mouth)
        if "face" in branches:
            seen = torch.ones_like(target.mouth) if "mouth" in branches else 1 - target.mouth
            box = portrait.data.lip_box
            regions["psnr"] = (error, seen)
            regions["head"] = (error, target.head * seen)
            regions["lips"] = (crop(error, target.lip_corner, box), crop(seen, target.lip_corner, box))
        for name, (squared, mask) in regions.items():
            sums.setdefault(name, []).extend(_decibels(squared, mask))
    return {name: round(float(np.mean(values)), 3) for name, values in sums.items() if values}


def _fine_contrast(image: Tensor) -> Tensor:
    """Absolute difference of each pixel from the mean of its 3x3 neighbourhood, [B, C, H, W]."""
    return (image - functional.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)).abs()


def _decibels(squared: Tensor, mask: Tensor) -> list[float]:
    area = mask.sum((1, 2, 3))
    mean = (squared * mask).sum((1, 2, 3)) / (area * squared.shape[1]).clamp_min(1)
    values = -10 * torch.log10(mean.clamp_min(1e-10))
    return [float(value) for value, pixels in zip(values, area, strict=True) if pixels >= _LEAST_PIXELS]
