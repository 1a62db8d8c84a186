"""From a frame's driving values to the Gaussians that the rasteriser draws.

The three networks of a bundle (face, mouth, torso) are evaluated with numpy. What depends on positions alone
is computed when the avatar is loaded; Gaussians that no lip code or expression moves visibly keep their mean
deformation and are never evaluated again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from model_hosts.talking_gaussian.bundle import BRANCHES, UNITS, Bundle, FloatArray
from model_hosts.talking_gaussian.model.kernels import follow_track, shade
from model_hosts.talking_gaussian.model.network import BranchNetwork, Scratch
from model_hosts.talking_gaussian.model.pose import view_of_pose

PLANES = 14
"""Rows of the splat planes: xyz 3, scale 3, quaternion wxyz 4, log opacity 1, rgb 3."""
_MAX_SCALE = np.float32(0.03)
_XYZ, _SCALE, _OPACITY, _RGB = slice(0, 3), slice(3, 6), 10, slice(11, 14)
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
    """A branch with its active Gaussians first.

    Attributes:
        rest: [14, N] planes without deformation: xyz, log scale, quaternion, opacity logit, rgb. What the
            network always adds is in it, and for frozen Gaussians its mean.
        rest_xyz: [3, N] undeformed centres.
        sh: [9, N] spherical harmonics, None for the torso.
    """

    def __init__(self, bundle: Bundle, name: str, start: int, tolerance: float) -> None:
        own = bundle.group(f"{name}.")
        network = BranchNetwork.load(bundle, name)
        mean, spread = _measure(network, _probe_conditions(bundle, name))
        score = (spread / _visible(bundle, name)).max(0)
        active = score > tolerance if tolerance > 0 else np.ones(len(score), np.bool_)
        self.order = np.concatenate([np.flatnonzero(active), np.flatnonzero(~active)])
        self.active = int(active.sum())
        self.network = network.only(self.order[: self.active])
        self.start, self.stop = start, start + len(self.order)
        quat = own["quat"] / np.maximum(np.linalg.norm(own["quat"], axis=1, keepdims=True), 1e-12)
        parts = own["xyz"], own["log_scale"], quat, own["opacity_logit"][:, None], own["rgb"]
        rest = np.concatenate([part.T for part in parts], dtype=np.float32)[:, self.order]
        rest += BranchNetwork.bias(bundle, name)
        rest[:, self.active :] += mean[:, self.order[self.active :]]
        self.rest = np.ascontiguousarray(rest)
        self.rest_xyz = np.ascontiguousarray(own["xyz"][self.order].T)
        self.sh = np.ascontiguousarray(own["sh"][self.order].reshape(-1, 9).T) if "sh" in own else None


class Workspace:
    """What one thread needs to deform frames; its planes are overwritten by every frame."""

    def __init__(self, deformer: Deformer) -> None:
        self.planes = np.empty((PLANES, deformer.count), np.float32)
        self._scratch = [Scratch(branch.network.hidden) for branch in deformer.branches]
        for branch in deformer.branches:
            columns = self.planes[:, branch.start : branch.stop]
            columns[:] = branch.rest
            _finish(columns)

    def deform(self, number: int, branch: _Branch, condition: FloatArray) -> None:
        """Writes the planes of a branch, all but what depends on the view."""
        columns = self.planes[:, branch.start : branch.stop]
        branch.network.evaluate(condition, branch.rest, columns, self._scratch[number])
        n = branch.active
        _finish(columns[:, :n])
        # The last frame's view is still in these.
        for rows in (_XYZ, _RGB):
            columns[rows, n:] = branch.rest[rows, n:]


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
        return {name: branch.order for name, branch in zip(BRANCHES, self.branches, strict=True)}

    def workspace(self) -> Workspace:
        """A workspace for one more thread."""
        return Workspace(self)

    def pose(self, frame: FrameInput, workspace: Workspace) -> Splats:
        """Deforms and poses the avatar; the planes belong to the workspace until its next frame."""
        face, mouth, torso = self.branches
        code = self._embed[0] @ frame.lip + self._embed[1]
        track = [frame.pose / self._pose_std, frame.torso_track / self._track_std]
        conditions = (
            [code, frame.expression],
            [code, frame.expression[: self._mouth_expression]],
            track,
        )
        for number, (branch, parts) in enumerate(zip(self.branches, conditions, strict=True)):
            workspace.deform(number, branch, np.concatenate(parts, dtype=np.float32))
        view = view_of_pose(self._pose_mean, frame.pose)
        eye = -view[:, :3].T @ view[:, 3]
        planes = workspace.planes
        for branch in (face, mouth):
            assert branch.sh is not None  # noqa: S101 - the format gives face and mouth harmonics
            shade(planes, branch.start, branch.sh, branch.rest_xyz, eye)
        x, y, log_scale, angle = (float(value) for value in frame.torso_track)
        grow = np.exp(log_scale)
        follow_track(
            planes,
            torso.start,
            torso.stop,
            np.array([grow * np.cos(angle), grow * np.sin(angle)], np.float32),
            self._pivot,
            np.array([x / self._focal, y / self._focal], np.float32),
        )
        return Splats(
            planes,
            (
                Segment(0, torso.start, view),
                Segment(torso.start, torso.stop, np.eye(3, 4, dtype=np.float32)),
            ),
        )


def _finish(columns: FloatArray) -> None:
    """Log scales to scales, and opacity logits to log opacities, in place."""
    scale, opacity = columns[_SCALE], columns[_OPACITY]
    np.exp(scale, out=scale)
    np.minimum(scale, _MAX_SCALE, out=scale)
    np.negative(opacity, out=opacity)
    np.minimum(opacity, 80, out=opacity)
    np.exp(opacity, out=opacity)
    np.add(opacity, 1, out=opacity)
    np.log(opacity, out=opacity)
    np.negative(opacity, out=opacity)


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
    """The change [14, 1] of each plane at which it begins to be seen."""
    depth = abs(float(bundle.tensor("pose.mean")[2, 3]))
    if name == "torso":
        depth = max(float(np.median(bundle.tensor("torso.xyz")[:, 2])), 0.05)
    metres = 0.05 * depth / bundle.info.camera.focal
    return np.repeat(np.array([metres, 0.01, 0.01, 0.016, 0.002], np.float32), [3, 3, 4, 1, 3])[:, None]


def _measure(network: BranchNetwork, conditions: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and largest deviation from it of the deformations, each [14, N], over conditions [K, A + X]."""
    scratch = Scratch(network.hidden)
    rest = np.zeros((PLANES, network.count), np.float32)
    change = np.empty_like(rest)
    total = np.zeros_like(rest)
    low, high = np.full_like(rest, np.inf), np.full_like(rest, -np.inf)
    for condition in conditions:
        network.evaluate(condition, rest, change, scratch)
        total += change
        np.minimum(low, change, out=low)
        np.maximum(high, change, out=high)
    mean = total / np.float32(len(conditions))
    return mean, np.maximum(high - mean, mean - low)
