"""From a trained scene to the avatar bundle that is rendered from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from model_hosts.talking_gaussian.bundle import (
    THUMBNAIL,
    AvatarInfo,
    BranchInfo,
    Bundle,
    BundleInvalid,
    Camera,
)
from model_hosts.talking_gaussian.driving.idle import IdleMotion
from model_hosts.talking_gaussian.preprocess.dataset import HAIR, MOUTH, SKIN, TrainingSet
from model_hosts.talking_gaussian.preprocess.idle import Idle, without_blinks
from model_hosts.talking_gaussian.training.adaptation import Adaptation
from model_hosts.talking_gaussian.training.frames import track_spread
from model_hosts.talking_gaussian.training.scene import Branch, Drive
from model_hosts.talking_gaussian.training.trainer import Trainer

_KEPT_PREFIXES = ("audio.", "idle.")
_HALF_LIMIT = 6e4
_NOISE = 0.01


@dataclass(frozen=True)
class Card:
    """What the bundle says about the avatar."""

    name: str
    display_name: str
    description: str = ""
    synthetic: bool = False
    license: str = ""
    attribution: str = ""
    default_voice: str = "voices/af_heart"


def export_bundle(
    trainer: Trainer, card: Card, metrics: dict[str, float], path: Path, lips: Adaptation | None = None
) -> Bundle:
    """Writes the avatar; drivers of another training step that still fit the lip code are kept.

    Args:
        trainer: Has trained it.
        card: What the bundle says about it.
        metrics: How good it is.
        path: Bundle directory or .zip.
        lips: How the person moves the lips, where that was learnt.

    Raises:
        BundleInvalid: The trained values cannot be stored, for example because they are not finite.
    """
    data, shape = trainer.data, trainer.shape
    statistics = data.pose_statistics
    tensors: dict[str, npt.NDArray[Any]] = {
        "pose.mean": statistics.mean,
        "pose.std": statistics.std,
        "track.std": track_spread(data),
        "lip.embed.weight": _array(trainer.scene.embed.weight),
        "lip.embed.bias": _array(trainer.scene.embed.bias),
        "lip.closed": data.closed,
        "lip.std": data.lip[data.training].std(0),
        "units.mean": data.maps.mean,
        "units.to_lip": data.maps.to_lip,
        "units.to_expression": data.maps.to_expression,
    }
    branches = {}
    for name, branch in trainer.scene.branches.items():
        tensors.update({f"{name}.{key}": value for key, value in _branch_tensors(branch).items()})
        branches[name] = _branch_info(branch)
    drivers: dict[str, Any] = {
        "units": {"names": list(data.maps.names)},
        "track_mean": [round(float(value), 6) for value in data.track[data.training].mean(0)],
        "pose_coupling": [[round(float(value), 6) for value in row] for row in statistics.coupling],
    }
    kept_tensors, kept_drivers = _kept(path, data.maps.to_lip)
    if data.idle is not None:
        kept_tensors |= idle_motion(data, data.idle).tensors()
    if lips is not None:
        kept_tensors |= lips.lips.tensors()
        drivers["audio"] = lips.summary()
        drivers["expression_range"] = _seen_expressions(data)
    info = AvatarInfo(
        **asdict(card),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        width=data.size[1],
        height=data.size[0],
        camera=Camera(shape.focal, *shape.centre),
        branches=branches,
        lip_code=shape.lip,
        expression_names=data.maps.expression_names,
        torso_pivot=shape.pivot,
        audio_encoder="whisper-base",
        drivers={**kept_drivers, **drivers},
        training={
            "recipe": asdict(trainer.settings),
            "frames": len(data.training),
            "held_out": len(data.held_out),
            "metrics": metrics,
            "seconds": {name: round(value, 1) for name, value in trainer.seconds.items()},
        },
    )
    bundle = Bundle(info, {**kept_tensors, **tensors}, _plate(trainer), thumbnail(trainer))
    bundle.write(path)
    return bundle


def thumbnail(trainer: Trainer) -> npt.NDArray[np.uint8]:
    """The drawn person at rest, head and some shoulder, uint8 [256, 256, 3]."""
    data = trainer.data
    index = torch.tensor([data.key], device=trainer.device)
    drive = trainer.frames.drive(index)
    closed = torch.from_numpy(data.closed).to(trainer.device)[None]
    image = trainer.picture(Drive(closed, *drive[1:]))
    rows, columns = np.nonzero(np.isin(data.labels[data.key], (SKIN, HAIR, MOUTH)))
    side = min(int(1.25 * max(np.ptp(rows), np.ptp(columns))) + 1, *data.size)
    top = int(np.clip((rows.min() + rows.max() - side) // 2, 0, data.size[0] - side))
    left = int(np.clip((columns.min() + columns.max() - side) // 2, 0, data.size[1] - side))
    square = image[..., top : top + side, left : left + side]
    small = functional.interpolate(square, size=(THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)
    picture = (small[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    return cast(npt.NDArray[np.uint8], picture)


def idle_motion(data: TrainingSet, idle: Idle) -> IdleMotion:
    """What a bundle says about how the person holds still."""
    return IdleMotion(data.pose_statistics.vectors(idle.poses), without_blinks(idle.units), idle.track)


def _plate(trainer: Trainer) -> npt.NDArray[np.uint8]:
    """The picture behind the person, learnt or the clip's own, uint8 [H, W, 3]."""
    if trainer.scene.plate is None:
        return trainer.data.plate
    plate = (trainer.scene.plate.detach()[0].clamp(0, 1) * 255).round().byte()
    return cast(npt.NDArray[np.uint8], plate.permute(1, 2, 0).contiguous().cpu().numpy())


def _branch_info(branch: Branch) -> BranchInfo:
    return BranchInfo(
        count=branch.count,
        bound=branch.net.planes.bound,
        levels=branch.size.levels,
        channels=branch.size.channels,
        hidden=branch.size.hidden,
        code=branch.net.code.in_features if branch.net.code is not None else 0,
        expression=branch.net.expr.in_features if branch.net.expr is not None else 0,
        centre=cast(tuple[float, float, float], tuple(float(value) for value in branch.centre)),
    )


def _branch_tensors(branch: Branch) -> dict[str, npt.NDArray[Any]]:
    values = {
        "xyz": branch.xyz,
        "rgb": branch.rgb,
        "log_scale": branch.log_scale,
        "quat": functional.normalize(branch.quat, dim=-1),
        "opacity_logit": branch.opacity_logit,
        **{f"grid.{level}": plane for level, plane in enumerate(branch.net.planes.levels)},
    }
    if branch.sh is not None:
        values["sh"] = branch.sh
    for name, value in branch.net.named_parameters():
        if not name.startswith("planes."):
            # torch counts the activation between the attention's two layers; the format does not.
            values["net." + name.replace("attention.2.", "attention.1.")] = value
    return {name: _array(value) for name, value in values.items()}


def _seen_expressions(data: TrainingSet) -> list[list[float]]:
    """Least and most of each expression channel, [2][E], but for rare noise; blinks are rare and no noise."""
    seen = data.expression[data.training]
    blinks = [name.startswith("blink") for name in data.maps.expression_names]
    low = np.quantile(seen, _NOISE, axis=0)
    high = np.where(blinks, seen.max(0), np.quantile(seen, 1 - _NOISE, axis=0))
    return [[round(float(value), 4) for value in row] for row in (low, high)]


def _array(value: Tensor) -> npt.NDArray[Any]:
    return value.detach().float().clamp(-_HALF_LIMIT, _HALF_LIMIT).cpu().numpy()


def _kept(path: Path, to_lip: npt.NDArray[np.float32]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Drivers of the bundle that is replaced, when they drive the same lip code."""
    if not path.exists():
        return {}, {}
    try:
        old = Bundle.read(path)
    except BundleInvalid:
        return {}, {}
    if old.tensor("units.to_lip").shape != to_lip.shape or not np.allclose(
        old.tensor("units.to_lip"), to_lip, rtol=2e-3, atol=2e-3
    ):
        return {}, {}
    tensors = {name: value for name, value in old.tensors.items() if name.startswith(_KEPT_PREFIXES)}
    return tensors, dict(old.info.drivers)
