"""The Gaussians of many frames at once on a GPU: `model.deformation`, batched, in torch.

What depends on positions alone is computed when the avatar is loaded, as on a processor. Every Gaussian is
evaluated in every frame: on a GPU those that hardly move cost less than sorting them out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model_hosts.talking_gaussian.bundle import BRANCHES, Bundle, FloatArray
from model_hosts.talking_gaussian.model.features import static_inputs
from model_hosts.talking_gaussian.rendering.quaternions import multiply, quaternion

_SH1 = 0.4886025
_MOST_SCALE = 0.03
_STEPS = np.repeat(np.array([0.01, 0.1, 0.1, 1.0, 0.1], np.float32), [3, 4, 3, 1, 3])
_PARTS = (3, 4, 3, 1, 3)
"""Outputs of a network: position, quaternion, log scale, opacity logit, colour."""


class Driving(NamedTuple):
    """Of B frames: lip codes [B, L], expressions [B, E], pose vectors [B, 6], torso tracks [B, 4]."""

    lip: Tensor
    expression: Tensor
    pose: Tensor
    torso_track: Tensor


class PosedSplats(NamedTuple):
    """Gaussians of B frames in camera space, as gsplat takes them.

    Attributes:
        means: [B, N, 3] metres.
        quats: [B, N, 4] wxyz, of any length.
        scales: [B, N, 3] metres.
        opacities: [B, N].
        colours: [B, N, 3].
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colours: Tensor


class _Branch:
    """A branch's constants on the GPU."""

    def __init__(self, bundle: Bundle, name: str, device: torch.device) -> None:
        own = bundle.group(f"{name}.")
        encoded, gates, first = static_inputs(bundle, name)

        def put(value: FloatArray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(value, np.float32)).to(device)

        self._encoded, self._gates, self._first = put(encoded.T), put(gates.T), put(first)
        self._hidden = put(own["net.hidden.weight"].T), put(own["net.hidden.bias"])
        self._out = put((own["net.out.weight"] * _STEPS[:, None]).T), put(own["net.out.bias"] * _STEPS)
        self.xyz = put(own["xyz"])
        quat = own["quat"] / np.maximum(np.linalg.norm(own["quat"], axis=1, keepdims=True), 1e-12)
        rest = own["xyz"], quat, own["log_scale"], own["opacity_logit"][:, None], own["rgb"]
        self._rest = put(np.concatenate(rest, axis=1))
        self.sh = put(own["sh"]) if "sh" in own else None

    def deform(self, condition: Tensor) -> PosedSplats:
        """The branch under conditions [B, A + X], not yet posed."""
        batch = len(condition)
        weight = (self._first * condition[:, None]).transpose(1, 2)
        first = torch.baddbmm(
            self._encoded.expand(batch, -1, -1), self._gates.expand(batch, -1, -1), weight
        ).relu_()
        second = torch.addmm(self._hidden[1], first.flatten(0, 1), self._hidden[0]).relu_()
        change = torch.addmm(self._out[1], second, self._out[0]).unflatten(0, (batch, -1))
        position, quat, log_scale, opacity, colour = (self._rest + change).split(_PARTS, -1)
        scales = log_scale.exp().clamp_max_(_MOST_SCALE)
        return PosedSplats(position, quat, scales, opacity[..., 0].sigmoid(), colour)


class Motion:
    """An avatar that poses many frames at once.

    Args:
        bundle: The avatar.
        device: The GPU.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        info = bundle.info

        def put(value: object) -> Tensor:
            return torch.from_numpy(np.asarray(value, np.float32)).to(device)

        self._branches = {name: _Branch(bundle, name, device) for name in BRANCHES}
        self._embed = put(bundle.tensor("lip.embed.weight").T), put(bundle.tensor("lip.embed.bias"))
        self._mouth_expression = info.branches["mouth"].expression
        self._pose_std, self._track_std = put(bundle.tensor("pose.std")), put(bundle.tensor("track.std"))
        mean = bundle.tensor("pose.mean")
        self._mean_turn, self._mean_shift = put(mean[:3, :3]), put(mean[:3, 3])
        self._mean_quat = put(quaternion(mean[:3, :3]))
        centre = (info.camera.cx, info.camera.cy)
        self._pivot = put(np.subtract(info.torso_pivot, centre) / info.camera.focal)
        self._focal = info.camera.focal
        self._skew = put(_CROSS)
        self._identity = torch.eye(3, device=device)

    def pose(self, frames: Driving) -> PosedSplats:
        """The Gaussians of frames, branch after branch."""
        code = torch.addmm(self._embed[1], frames.lip, self._embed[0])
        conditions = {
            "face": [code, frames.expression],
            "mouth": [code, frames.expression[:, : self._mouth_expression]],
            "torso": [frames.pose / self._pose_std, frames.torso_track / self._track_std],
        }
        turn, quat = self._turn(frames.pose[:, :3])
        shift = self._mean_shift + frames.pose[:, 3:]
        parts = []
        for name, branch in self._branches.items():
            splats = branch.deform(torch.cat(conditions[name], 1))
            if branch.sh is None:
                parts.append(self._follow(splats, frames.torso_track))
            else:
                parts.append(_posed(splats, branch, turn, quat, shift))
        return PosedSplats(*(torch.cat(values, 1) for values in zip(*parts, strict=True)))

    def _turn(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """View rotations [B, 3, 3] and their quaternions [B, 4] for rotation vectors [B, 3]."""
        angle = vector.norm(dim=1, keepdim=True).clamp_min(1e-8)
        axis = vector / angle
        skew = (axis @ self._skew).unflatten(1, (3, 3))
        sine, cosine = angle.sin()[..., None], angle.cos()[..., None]
        turn = self._identity + sine * skew + (1 - cosine) * (skew @ skew)
        half = torch.cat([(angle / 2).cos(), axis * (angle / 2).sin()], 1)
        return turn @ self._mean_turn, multiply(half, self._mean_quat.expand(len(half), -1))

    def _follow(self, splats: PosedSplats, track: Tensor) -> PosedSplats:
        """Moves the torso by a similarity of the picture at constant depth."""
        depth = splats.means[..., 2:]
        x, y = (splats.means[..., :2] - self._pivot * depth).unbind(-1)
        grow = track[:, 2].exp()
        cosine, sine = (grow * track[:, 3].cos())[:, None], (grow * track[:, 3].sin())[:, None]
        turned = torch.stack([cosine * x - sine * y, sine * x + cosine * y], -1)
        place = turned + (self._pivot + track[:, None, :2] / self._focal) * depth
        return splats._replace(means=torch.cat([place, depth], -1), colours=splats.colours.clamp_min(0))


_CROSS = np.zeros((3, 9), np.float32)
"""v @ _CROSS is the matrix of the cross product with v, row by row."""
_CROSS[0, [5, 7]] = -1, 1
_CROSS[1, [2, 6]] = 1, -1
_CROSS[2, [1, 3]] = -1, 1


def _posed(splats: PosedSplats, branch: _Branch, turn: Tensor, quat: Tensor, shift: Tensor) -> PosedSplats:
    """Into the camera frame, with first-degree harmonics added to the colours."""
    eye = -(turn.transpose(1, 2) @ shift[:, :, None])[:, :, 0]
    towards = branch.xyz - eye[:, None]
    x, y, z = (towards * _SH1 / towards.norm(dim=-1, keepdim=True))[..., None].unbind(-2)
    assert branch.sh is not None  # noqa: S101 - the caller looked
    shade = z * branch.sh[:, 1] - y * branch.sh[:, 0] - x * branch.sh[:, 2]
    return splats._replace(
        means=torch.baddbmm(shift[:, None], splats.means, turn.transpose(1, 2)),
        quats=multiply(quat[:, None], splats.quats),
        colours=(splats.colours + shade).clamp_min_(0),
    )
