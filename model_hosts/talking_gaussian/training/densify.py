"""More Gaussians where the picture asks for them, fewer where nobody sees them.

After Kerbl et al., 3D Gaussian Splatting (2023), section 5: Gaussians whose centres are pulled about most in
the picture become two. Instead of a threshold on that pull there is a budget, so that time and memory are
known before, and nothing is drawn by lot: a seed gives one avatar. Opacities are corrected as two overlapping
Gaussians need it (compare Rota Bulò et al., Revising Densification in Gaussian Splatting, 2024), so that the
picture hardly changes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from model_hosts.talking_gaussian.rendering.quaternions import multiply
from model_hosts.talking_gaussian.training.optimiser import carry
from model_hosts.talking_gaussian.training.scene import Branch, Scene
from model_hosts.talking_gaussian.training.settings import Growth

_PREFIX = "densifier."
_APART = 0.5
"""Distance of a half from the middle of what was split, in standard deviations."""
_SHRUNK = math.sqrt(1 - _APART**2)
"""Length of a half, so that both together are as long as what was split."""
_MOST_OPACITY = 0.995


class Densifier:
    """Counts how much each Gaussian is pulled about and turns those pulled most into two.

    Args:
        scene: What grows.
        branches: Names of those that are learnt, in the order they are drawn.
        growth: How far and when.
        steps: Length of the stage.
        faded: Gaussians below this opacity are removed.
        pixels: Size in metres of a pixel where each branch is.
    """

    def __init__(
        self,
        scene: Scene,
        branches: tuple[str, ...],
        growth: Growth,
        steps: int,
        faded: float,
        pixels: dict[str, float],
    ) -> None:
        self._scene, self._branches, self._growth, self._faded = scene, branches, growth, faded
        self._pixels = pixels
        first, last = round(growth.first * steps), round(growth.last * steps)
        self._events = [step for step in range(first, last + 1) if step and step % growth.every == 0]
        self._pull = {name: torch.zeros(0) for name in branches}
        self._seen = {name: torch.zeros(0) for name in branches}
        for name in branches:
            self._forget(name)

    def watch(self, means: Tensor, gradient: Tensor, focal: float) -> None:
        """Adds the pull on the centres of one step.

        Args:
            means: Drawn centres in camera space [B, N, 3], one branch after another.
            gradient: Of the loss by them.
            focal: Focal length in pixels.
        """
        # u = f x / z: the gradient by pixels is that by metres times z / f. A loss is the mean of its frames.
        pull = gradient[..., :2].norm(dim=-1) * means.detach()[..., 2] / focal * len(means)
        start = 0
        for name in self._branches:
            end = start + self._scene.branches[name].count
            self._pull[name] += pull[:, start:end].sum(0)
            self._seen[name] += (pull[:, start:end] > 0).sum(0)
            start = end

    def act(self, step: int, optimiser: torch.optim.Optimizer) -> bool:
        """Grows and prunes if it is time to, and says whether; `step` counts from 1."""
        if step not in self._events:
            return False
        left = len(self._events) - self._events.index(step)
        for name in self._branches:
            branch = self._scene.branches[name]
            self._prune(name, branch, optimiser)
            room = max(0, getattr(self._growth, name) - branch.count)
            self._grow(name, branch, math.ceil(room / left), optimiser)
            self._forget(name)
        return True

    def state(self) -> dict[str, Tensor]:
        """What was counted, as named tensors."""
        counts = {"pull": self._pull, "seen": self._seen}
        return {f"{_PREFIX}{kind}.{name}": value for kind, by in counts.items() for name, value in by.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        for name in self._branches:
            device = self._scene.branches[name].xyz.device
            self._pull[name] = state[f"{_PREFIX}pull.{name}"].to(device, copy=True)
            self._seen[name] = state[f"{_PREFIX}seen.{name}"].to(device, copy=True)

    def _forget(self, name: str) -> None:
        self._pull[name] = torch.zeros_like(self._scene.branches[name].opacity_logit.detach())
        self._seen[name] = torch.zeros_like(self._pull[name])

    def _prune(self, name: str, branch: Branch, optimiser: torch.optim.Optimizer) -> None:
        visible = torch.sigmoid(branch.opacity_logit.detach()) > self._faded
        if visible.all() or not visible.any():
            return
        kept = visible.nonzero()[:, 0]
        take_rows(branch, optimiser, kept, kept)
        self._pull[name], self._seen[name] = self._pull[name][kept], self._seen[name][kept]

    def _grow(self, name: str, branch: Branch, most: int, optimiser: torch.optim.Optimizer) -> None:
        pull = self._pull[name] / self._seen[name].clamp_min(1)
        # A stable sort: equal pulls must not be ordered by chance.
        chosen = torch.argsort(pull, descending=True, stable=True)[:most]
        split_size = self._growth.split_pixels * self._pixels[name]
        double(branch, optimiser, chosen[pull[chosen] > 0], split_size)


def double(branch: Branch, optimiser: torch.optim.Optimizer, chosen: Tensor, split_size: float) -> None:
    """Turns Gaussians into two each, appended behind the others, with hardly a change of the picture.

    A small one is cloned in its place, and the copy, which starts without moments, goes its own way. A large
    one is split along its longest axis into two that together cover what it covered.

    Args:
        branch: Whose they are.
        optimiser: Learns the branch; the first of the two inherits the moments.
        chosen: Rows, int64 [K].
        split_size: Standard deviation in metres from which they are split.
    """
    if not len(chosen):
        return
    count = branch.count
    everyone = torch.arange(count, device=chosen.device)
    take_rows(
        branch, optimiser, torch.cat([everyone, chosen]), torch.cat([everyone, torch.full_like(chosen, -1)])
    )
    with torch.no_grad():
        longest = branch.log_scale[chosen].max(1)
        large = longest.values > math.log(split_size)
        offset = (
            _axis(branch.quat[chosen], longest.indices) * (longest.values.exp() * _APART * large)[:, None]
        )
        opacity = _shared_opacity(torch.sigmoid(branch.opacity_logit[chosen]), large)
        halves = branch.log_scale[chosen]
        halves[torch.arange(len(chosen)), longest.indices] += math.log(_SHRUNK) * large
        copies = torch.arange(count, branch.count, device=chosen.device)
        for rows, sign in ((chosen, 1), (copies, -1)):
            branch.xyz[rows] += sign * offset
            branch.log_scale[rows] = halves
            branch.opacity_logit[rows] = torch.logit(opacity)


def take_rows(branch: Branch, optimiser: torch.optim.Optimizer, source: Tensor, moments: Tensor) -> None:
    """Makes a branch the rows `source` of what it was; row k inherits the moments of row `moments[k]`."""
    before = branch.rows
    branch.take(source)
    for part, value in branch.rows.items():
        carry(optimiser, before[part], value, moments)


def _axis(quats: Tensor, which: Tensor) -> Tensor:
    """Unit vectors [K, 3] along the axes number `which` [K] of Gaussians turned by `quats` [K, 4] wxyz."""
    unit = functional.normalize(quats, dim=-1)
    vector = functional.pad(functional.one_hot(which, 3).to(unit.dtype), (1, 0))
    back = unit * unit.new_tensor([1.0, -1.0, -1.0, -1.0])
    return multiply(multiply(unit, vector), back)[:, 1:]


def _shared_opacity(opacity: Tensor, split: Tensor) -> Tensor:
    """Opacity a of each of two so that together they cover as much as one of `opacity` o did.

    One covers an area proportional to o, two cover s (2 a - k a² / 2), where s is their length and k the
    share in which they overlap: a is the smaller solution of s (2 a - k a² / 2) = o.
    """
    overlap = torch.where(split, math.exp(-((_APART / _SHRUNK) ** 2)), 1.0)
    length = torch.where(split, _SHRUNK, 1.0)
    root = torch.sqrt((4 - 2 * overlap * opacity.clamp(max=_MOST_OPACITY) / length).clamp_min(0))
    return (2 - root) / overlap
