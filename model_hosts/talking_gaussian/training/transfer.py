"""Motion of another avatar as the start of a new one: a short clip shows too little of how a face moves.

How a jaw opens and a lid closes is alike in all people; what they look like is not. So the network of the
face starts as that of an avatar that was trained on much more, placed so that eyes and mouth of both meet.
Colours, shapes, torso, the inside of the mouth and what the network did to colour and opacity are the
person's own from the first step.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_hosts.talking_gaussian.bundle import Bundle
from model_hosts.talking_gaussian.preprocess.dataset import LipShape, TrainingSet
from model_hosts.talking_gaussian.preprocess.poses import to_head, unproject
from model_hosts.talking_gaussian.training.networks import POSITION_STEP, SMALL_STEP, Deformation
from model_hosts.talking_gaussian.training.scene import Branch, Drive, Scene
from model_hosts.talking_gaussian.training.settings import BranchSize, Settings

FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

DEMO = Path(__file__).resolve().parents[3] / "server" / "store" / "builtin" / "avatars" / "demo"
"""The avatar that is shipped: where it lies in a checkout."""
SHORT = 250
"""Frames below which a clip is short."""
STEPS = 1 / 3
"""Of the recipe's steps for short clips: more of them learn the clip by heart, and forget what was known."""

_POSITION, _LOOKS = slice(0, 3), slice(10, None)
_RIDGE = 0.2
"""Of the other avatar's mean response: unusual codes are not asked for to gain a tenth of a millimetre."""
_CODES, _CODE_SPREAD = 256, 0.7
"""Lip codes about the closed mouth at which the other avatar is asked what they do."""
_LARGEST = 1.5
"""Heads differ by no more than this in size."""
_BLINKS, _SHUT = ("blinkLeft", "blinkRight"), 3.0
_ROUNDS = 5


class TransferUnsuitable(ValueError):  # noqa: N818 - reads as a statement, like DatasetInvalid
    """The recording cannot start with the motion of that avatar."""


class Placement(NamedTuple):
    """Where a point of the person lies on the other avatar: scale * point + shift, metres."""

    scale: float
    shift: Doubles


class _LipMap(NamedTuple):
    weight: Doubles
    offset: Doubles


def motion_for(data: TrainingSet, demo: Path = DEMO) -> Bundle | None:
    """The avatar whose motion a recording starts with when nobody chose: the demo avatar.

    None for drawn persons, and where the demo avatar is not at hand.

    Args:
        data: The recording.
        demo: The demo avatar.

    Raises:
        BundleInvalid: The demo avatar is damaged.
    """
    if data.lip_shape is None or not demo.exists():
        return None
    return Bundle.read(demo)


def recipe_for(settings: Settings, data: TrainingSet, other: Bundle) -> Settings:
    """A recipe with a face network of the other avatar's size, and with fewer steps for a short clip."""
    face = other.info.branches["face"]
    size = BranchSize(settings.face.count, face.hidden, face.levels, face.channels)
    sized = replace(settings, face=size, code=face.code)
    if data.count >= SHORT:
        return sized
    whole = settings.mouth_steps + settings.face_steps + settings.fuse_steps
    return sized.with_steps(max(3, round(STEPS * whole)))


def adopt(scene: Scene, data: TrainingSet, other: Bundle, key: Drive) -> None:
    """Gives a new scene the motion of another avatar.

    Args:
        scene: As it was initialised, with networks sized by `recipe_for`.
        data: The recording it is trained on.
        other: The avatar whose motion it starts with.
        key: What drives the key frame, [1, ...]; there the Gaussians stay where they are.

    Raises:
        TransferUnsuitable: The recording is not of a person, or the two have other expression channels or
            sizes.
    """
    lips = data.lip_shape
    if lips is None:
        raise TransferUnsuitable("only a recorded person can start with the motion of another avatar")
    if other.info.expression_names != data.maps.expression_names:
        raise TransferUnsuitable(f"the avatar {other.info.name} has other expression channels")
    device, branch = scene.embed.weight.device, scene.face
    source = _network(other).to(device)
    place = _placement(scene, data, other, source)
    to_other, offset = _lip_map(lips, data.closed, other, source, place)
    with torch.no_grad():
        try:
            branch.net.load_state_dict(source.state_dict())
        except RuntimeError as error:
            raise TransferUnsuitable(
                f"the face network of {other.info.name} has another size than the recipe's"
            ) from error
        branch.net.planes.bound = source.planes.bound / place.scale
        centre = (np.asarray(other.info.branches["face"].centre) - place.shift) / place.scale
        branch.centre.copy_(_as_tensor(centre, device))
        for part in (branch.net.out.weight, branch.net.out.bias):
            part[_POSITION] /= place.scale
            part[_LOOKS] = 0
        assert branch.net.expr is not None  # noqa: S101 - the face always has one
        branch.net.expr.weight *= _as_tensor(_expression_scale(data, other), device)
        weight, bias = (_tensor(other, f"lip.embed.{part}").to(device) for part in ("weight", "bias"))
        scene.embed.weight.copy_(weight @ _as_tensor(to_other, device).T)
        scene.embed.bias.copy_(bias + weight @ _as_tensor(offset, device))
        _hold(branch, scene.embed(key.lip), key.expression)


def _network(bundle: Bundle) -> Deformation:
    """The face's network in torch."""
    info = bundle.info.branches["face"]
    network = Deformation(
        info.levels,
        info.channels,
        info.bound,
        info.hidden,
        info.code,
        info.expression,
        torch.Generator().manual_seed(0),
    )
    state = {f"planes.levels.{k}": _tensor(bundle, f"face.grid.{k}") for k in range(len(info.levels))}
    for key in network.state_dict():
        if not key.startswith("planes."):
            state[key] = _tensor(bundle, "face.net." + key.replace("attention.2.", "attention.1."))
    network.load_state_dict(state)
    return network


def _hold(branch: Branch, code: Tensor, expression: Tensor) -> None:
    """Takes what the network does in the key frame from the Gaussians, which were sampled there."""
    seen = branch.xyz.detach().clone()
    for _ in range(_ROUNDS):
        # What moves a Gaussian depends on where it rests.
        raw = branch.net(branch.xyz - branch.centre, code, expression)[0]
        branch.xyz.copy_(seen - raw[:, :3] * POSITION_STEP)
    branch.log_scale -= raw[:, 7:10] * SMALL_STEP


def _placement(scene: Scene, data: TrainingSet, other: Bundle, face: Deformation) -> Placement:
    """By the eyes and the inside of the mouth."""
    theirs = np.concatenate([_eyes_of(other, face), np.median(other.tensor("mouth.xyz"), 0)[None]])
    inside = scene.mouth.xyz.detach().cpu().numpy()
    ours = np.concatenate([_eyes_in(data), np.median(inside, 0)[None]])
    mean_theirs, mean_ours = theirs.mean(0), ours.mean(0)
    # Depths say little about size: they were guessed for one of the two.
    spread = [np.linalg.norm((points - points.mean(0))[:, :2]) for points in (theirs, ours)]
    scale = float(np.clip(spread[0] / spread[1], 1 / _LARGEST, _LARGEST))
    return Placement(scale, mean_theirs - scale * mean_ours)


def _eyes_of(other: Bundle, face: Deformation) -> Doubles:
    """Where lids move when the avatar blinks: the eyes [2, 3], that at the viewer's left first."""
    info = other.info.branches["face"]
    device = face.out.weight.device
    xyz = _tensor(other, "face.xyz").to(device)
    names = other.info.expression_names
    drive = torch.zeros(2, len(names), device=device)
    drive[1, [names.index(blink) for blink in _BLINKS]] = _SHUT
    rest = _tensor(other, "lip.embed.weight") @ _tensor(other, "lip.closed")
    code = (rest + _tensor(other, "lip.embed.bias")).to(device)[None].expand(2, -1)
    with torch.no_grad():
        moved = face(xyz - torch.tensor(info.centre, device=device), code, drive)[..., :3]
    weight = (moved[1] - moved[0]).square().sum(-1, keepdim=True)
    sides = [xyz[:, :1] < 0, xyz[:, :1] >= 0]
    eyes = torch.stack([(weight * side * xyz).sum(0) / (weight * side).sum() for side in sides])
    return np.asarray(eyes.double().cpu().numpy())


def _eyes_in(data: TrainingSet) -> Doubles:
    """The eyes of the recording in the head frame, [2, 3], that at the viewer's left first."""
    centres = (data.eye_corners[data.key] + np.asarray(data.eye_box) / 2).astype(np.float32)
    columns, rows = centres.astype(np.int64).T
    points = unproject(centres, data.depth[rows, columns], data.focal, data.centre)
    eyes = to_head(points, data.poses[data.key]).astype(np.float64)
    return np.asarray(eyes[eyes[:, 0].argsort()])


def _lip_map(
    lips: LipShape, closed: FloatArray, other: Bundle, face: Deformation, place: Placement
) -> _LipMap:
    """The other avatar's lip code from the person's: their = own @ weight + offset.

    Fitted so that at the person's landmarks the other face moves as the person's does: both codes are about
    the same places, in metres. Closed lips are closed lips.
    """
    device = face.out.weight.device
    centre = np.asarray(other.info.branches["face"].centre)
    offset = _as_tensor(place.scale * lips.points + place.shift - centre, device)
    rest = other.tensor("lip.closed").astype(np.float64)
    codes = rest + np.random.default_rng(0).normal(0, _CODE_SPREAD, (_CODES, len(rest)))
    weight, bias = (_tensor(other, f"lip.embed.{part}").to(device) for part in ("weight", "bias"))
    expression = torch.zeros(_CODES, len(other.info.expression_names), device=device)
    with torch.no_grad():
        raw = face(offset, _as_tensor(codes, device) @ weight.T + bias, expression)
    moved = raw[..., :2].double().cpu().numpy().reshape(_CODES, -1) * POSITION_STEP / place.scale
    response, *_ = np.linalg.lstsq(codes - codes.mean(0), moved - moved.mean(0), rcond=None)
    wanted = lips.basis.reshape(len(lips.basis), -1).astype(np.float64)
    normal = response @ response.T
    normal += _RIDGE * float(np.trace(normal)) / len(normal) * np.eye(len(normal))
    to_other = np.linalg.solve(normal, response @ wanted.T).T
    return _LipMap(to_other, rest - closed.astype(np.float64) @ to_other)


def _expression_scale(data: TrainingSet, other: Bundle) -> Doubles:
    """[E]: the other avatar's expression inputs per one of the person's; channels that never moved stay 1."""
    theirs = np.linalg.norm(other.tensor("units.to_expression"), axis=0)
    own = np.linalg.norm(data.maps.to_expression, axis=0)
    known = (theirs > 0) & (own > 0)
    return np.where(known, theirs / np.where(known, own, 1.0), 1.0)


def _tensor(bundle: Bundle, name: str) -> Tensor:
    return torch.from_numpy(np.array(bundle.tensor(name), np.float32))


def _as_tensor(value: Doubles, device: torch.device) -> Tensor:
    return torch.from_numpy(np.asarray(value, np.float32)).to(device)
