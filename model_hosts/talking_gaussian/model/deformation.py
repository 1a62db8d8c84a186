"""From a frame's driving values to the Gaussians that the rasteriser draws.

The three networks of a bundle (face, mouth, torso) are evaluated with numpy. What depends on positions alone
is computed when the avatar is loaded; Gaussians that no lip code or expression moves visibly keep their mean
deformation and are never evaluated again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from model_hosts.talking_gaussian.bundle import BRANCHES, OUTPUTS, UNITS, Bundle, FloatArray
from model_hosts.talking_gaussian.model.kernels import follow_track, shade
from model_hosts.talking_gaussian.model.network import BranchNetwork, Scratch
from model_hosts.talking_gaussian.model.pose import view_of_pose

PLANES = 14
"""Rows of the splat planes: xyz 3, scale 3, quaternion wxyz 4, log opacity 1, rgb 3."""
_MAX_SCALE = np.float32(0.03)
_OUTPUT_SCALE = np.repeat(np.array([0.01, 0.1, 0.1, 1.0, 0.1], np.float32), [3, 4, 3, 1, 3])[:, None]
_PROBES = 32


class FrameInput(NamedTuple):
    """The driving values of one frame: lip code [L], expression [E], pose vector [6], torso track [4]."""

    lip: FloatArray
    expression: FloatArray
    pose: FloatArray
    torso_track: FloatArray


@dataclass(frozen=True)
class Segment:
    """Consecutive Gaussians that share a view: columns start to stop, and the view [3, 4]."""

    start: int
    stop: int
    view: FloatArray


@dataclass(frozen=True)
class Splats:
    """The Gaussians of one frame: planes float32 [14, N] and the views of its segments."""

    planes: FloatArray
    segments: tuple[Segment, ...]


class _Branch:
    """A branch with its active Gaussians first."""

    def __init__(self, bundle: Bundle, name: str, start: int, tolerance: float) -> None:
        own = bundle.group(f"{name}.")
        self.name = name
        self.start = start
        network = BranchNetwork.load(bundle, name)
        mean, spread = _measure(network, _probe_conditions(bundle, name))
        score = (spread / _visible(bundle, name)).max(0)
        active = score > tolerance if tolerance > 0 else np.ones(len(score), np.bool_)
        self.order = np.concatenate([np.flatnonzero(active), np.flatnonzero(~active)])
        self.active = int(active.sum())
        self.network = network.only(self.order[: self.active])
        self.count = len(self.order)
        self.stop = start + self.count
        mean = mean[:, self.order]
        mean[:, : self.active] = 0
        mean *= _OUTPUT_SCALE
        planar = {
            key: np.ascontiguousarray(own[key][self.order].reshape(self.count, -1).T)
            for key in ("xyz", "rgb", "log_scale", "quat", "opacity_logit", *(("sh",) if "sh" in own else ()))
        }
        self.rest_xyz = planar["xyz"]
        self.sh = planar.get("sh")
        self.xyz = planar["xyz"] + mean[0:3]
        quat = planar["quat"] / np.maximum(np.linalg.norm(planar["quat"], axis=0), 1e-12)
        self.quat = quat + mean[3:7]
        self.log_scale = planar["log_scale"] + mean[7:10]
        self.opacity_logit = planar["opacity_logit"] + mean[10:11]
        self.rgb = planar["rgb"] + mean[11:14]


class Workspace:
    """What one thread needs to deform frames; its planes are overwritten by every frame."""

    def __init__(self, deformer: Deformer) -> None:
        self.planes = np.empty((PLANES, deformer.count), np.float32)
        self._scratch = {branch.name: Scratch(branch.network.hidden) for branch in deformer.branches}
        self._outputs = {
            branch.name: np.empty((OUTPUTS, branch.active), np.float32) for branch in deformer.branches
        }
        self._rgb = {branch.name: branch.rgb.copy() for branch in deformer.branches}
        self._xyz = {branch.name: branch.xyz.copy() for branch in deformer.branches}
        for branch in deformer.branches:
            columns = slice(branch.start, branch.stop)
            self.planes[0:3, columns] = branch.xyz
            self.planes[3:6, columns] = np.minimum(np.exp(branch.log_scale), _MAX_SCALE)
            self.planes[6:10, columns] = branch.quat
            self.planes[10, columns] = _log_sigmoid(branch.opacity_logit[0])
            self.planes[11:14, columns] = np.maximum(branch.rgb, 0)

    def apply(self, branch: _Branch, condition: FloatArray) -> None:
        """Evaluates the branch's network and writes all planes that need no view."""
        n = branch.active
        if n == 0:
            return
        out = self._outputs[branch.name]
        branch.network.evaluate(condition, out, self._scratch[branch.name])
        out *= _OUTPUT_SCALE
        columns = slice(branch.start, branch.start + n)
        np.add(branch.xyz[:, :n], out[0:3], out=self._xyz[branch.name][:, :n])
        if branch.sh is not None:
            self.planes[0:3, columns] = self._xyz[branch.name][:, :n]
        np.add(branch.quat[:, :n], out[3:7], out=self.planes[6:10, columns])
        scale = self.planes[3:6, columns]
        np.add(branch.log_scale[:, :n], out[7:10], out=scale)
        np.exp(scale, out=scale)
        np.minimum(scale, _MAX_SCALE, out=scale)
        self.planes[10, columns] = _log_sigmoid(branch.opacity_logit[0, :n] + out[10])
        np.add(branch.rgb[:, :n], out[11:14], out=self._rgb[branch.name][:, :n])

    def rgb(self, branch: _Branch) -> FloatArray:
        """Colours [3, n] of a branch before shading."""
        return self._rgb[branch.name]

    def xyz(self, branch: _Branch) -> FloatArray:
        """Centres [3, n] of a branch before the torso track."""
        return self._xyz[branch.name]


class Deformer:
    """An avatar ready to be posed. Immutable: threads share it, each with its own Workspace.

    Args:
        bundle: The avatar.
        tolerance: Gaussians whose deformation stays below this many thresholds of visibility for all probed
            inputs (0.05 px, 1 % of size, half a colour step) are frozen at their average; 0 freezes none.
    """

    def __init__(self, bundle: Bundle, tolerance: float = 1.0) -> None:
        self.branches: list[_Branch] = []
        start = 0
        for name in BRANCHES:
            self.branches.append(_Branch(bundle, name, start, tolerance))
            start += bundle.info.branches[name].count
        self.count = start
        info = bundle.info
        self._embed = bundle.tensor("lip.embed.weight"), bundle.tensor("lip.embed.bias")
        self._mouth_expression = info.branches["mouth"].expression
        self._pose_mean, self._pose_std = bundle.tensor("pose.mean"), bundle.tensor("pose.std")
        self._track_std = bundle.tensor("track.std")
        self._focal = info.camera.focal
        centre = info.camera.cx, info.camera.cy
        self._pivot = (np.subtract(info.torso_pivot, centre) / info.camera.focal).astype(np.float32)

    @property
    def active(self) -> int:
        """Gaussians that are evaluated in every frame."""
        return sum(branch.active for branch in self.branches)

    @property
    def order(self) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """Index in the bundle of each column of a branch's planes."""
        return {branch.name: branch.order for branch in self.branches}

    def workspace(self) -> Workspace:
        """A workspace for one more thread."""
        return Workspace(self)

    def pose(self, frame: FrameInput, workspace: Workspace) -> Splats:
        """Deforms and poses the avatar; the planes belong to the workspace until its next frame."""
        face, mouth, torso = self.branches
        code = self._embed[0] @ frame.lip + self._embed[1]
        workspace.apply(face, np.concatenate([code, frame.expression], dtype=np.float32))
        workspace.apply(
            mouth, np.concatenate([code, frame.expression[: self._mouth_expression]], dtype=np.float32)
        )
        workspace.apply(
            torso,
            np.concatenate(
                [frame.pose / self._pose_std, frame.torso_track / self._track_std], dtype=np.float32
            ),
        )
        view = view_of_pose(self._pose_mean, frame.pose)
        eye = -view[:, :3].T @ view[:, 3]
        planes = workspace.planes
        for branch in (face, mouth):
            assert branch.sh is not None  # noqa: S101 - the format gives face and mouth harmonics
            shade(workspace.rgb(branch), branch.sh, branch.rest_xyz, eye, planes, branch.start)
        np.maximum(workspace.rgb(torso), 0, out=planes[11:14, torso.start : torso.stop])
        x, y, log_scale, angle = (float(value) for value in frame.torso_track)
        grow = np.exp(log_scale)
        follow_track(
            workspace.xyz(torso),
            np.array([grow * np.cos(angle), grow * np.sin(angle)], np.float32),
            self._pivot,
            np.array([x / self._focal, y / self._focal], np.float32),
            planes,
            torso.start,
        )
        return Splats(
            planes,
            (
                Segment(0, torso.start, view),
                Segment(torso.start, torso.stop, np.eye(3, 4, dtype=np.float32)),
            ),
        )


def _log_sigmoid(logit: FloatArray) -> FloatArray:
    value: FloatArray = -np.log(1 + np.exp(np.minimum(-logit, np.float32(80))))
    return value


def _probe_conditions(bundle: Bundle, name: str) -> FloatArray:
    """Inputs [probes, A + X] that cover what drives a branch: spread-out codes and codes of face units."""
    rng = np.random.default_rng(0)
    info = bundle.info
    if name == "torso":
        return rng.normal(0, 1.5, (_PROBES, info.torso_condition)).astype(np.float32)
    half = _PROBES // 2
    units = rng.random((half, UNITS)) * (rng.random((half, UNITS)) < 0.25) - bundle.tensor("units.mean")
    lips = [rng.normal(0, 1.5, (half, info.lip_code)), units @ bundle.tensor("units.to_lip")]
    faces = [
        rng.normal(0, 1.5, (half, len(info.expression_names))),
        units @ bundle.tensor("units.to_expression"),
    ]
    code = np.concatenate(lips) @ bundle.tensor("lip.embed.weight").T + bundle.tensor("lip.embed.bias")
    expression = np.concatenate(faces)[:, : info.branches[name].expression]
    return np.concatenate([code, expression], 1, dtype=np.float32)


def _visible(bundle: Bundle, name: str) -> FloatArray:
    """The raw network output [14, 1] at which each kind of deformation begins to be seen."""
    depth = abs(float(bundle.tensor("pose.mean")[2, 3]))
    if name == "torso":
        depth = max(float(np.median(bundle.tensor("torso.xyz")[:, 2])), 0.05)
    move = 0.05 * depth / bundle.info.camera.focal / 0.01
    return np.repeat(np.array([move, 0.1, 0.1, 0.016, 0.02], np.float32), [3, 4, 3, 1, 3])[:, None]


def _measure(network: BranchNetwork, conditions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and largest deviation from it of the raw outputs, each [14, N], over conditions [K, A + X]."""
    scratch = Scratch(network.hidden)
    out = np.empty((OUTPUTS, network.count), np.float32)
    total = np.zeros_like(out)
    low, high = np.full_like(out, np.inf), np.full_like(out, -np.inf)
    for condition in conditions:
        network.evaluate(condition, out, scratch)
        total += out
        np.minimum(low, out, out=low)
        np.maximum(high, out, out=high)
    mean = total / np.float32(len(conditions))
    return mean, np.maximum(high - mean, mean - low)
