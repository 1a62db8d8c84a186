"""The optimiser of a stage, whose moments follow the Gaussians when their rows change."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model_hosts.talking_gaussian.training.scene import Scene
from model_hosts.talking_gaussian.training.settings import Rates

_BETAS = (0.9, 0.99)
_PREFIX = "optimiser."
MOMENTS = ("exp_avg", "exp_avg_sq")
"""Of AdamW, a row for each row of the parameter."""


def make_optimiser(scene: Scene, branches: tuple[str, ...], rates: Rates) -> torch.optim.Optimizer:
    """AdamW over what a stage learns; each group keeps its full rate under `base`."""
    groups: list[dict[str, object]] = [{"params": list(scene.embed.parameters()), "base": rates.network}]
    for name in branches:
        branch = scene.branches[name]
        groups += [{"params": [value], "base": getattr(rates, part)} for part, value in branch.rows.items()]
        planes = list(branch.net.planes.parameters())
        rest = [value for key, value in branch.net.named_parameters() if not key.startswith("planes.")]
        groups += [{"params": planes, "base": rates.planes}, {"params": rest, "base": rates.network}]
    if scene.plate is not None and "torso" in branches:
        groups.append({"params": [scene.plate], "base": rates.plate})
    # Fused, it also leaves out steps whose `found_inf` is set, without a GPU having to be waited for.
    return torch.optim.AdamW(groups, lr=1e-3, betas=_BETAS, eps=1e-15, weight_decay=0.0, fused=True)


def carry(optimiser: torch.optim.Optimizer, old: nn.Parameter, new: nn.Parameter, source: Tensor) -> None:
    """Puts a parameter with other rows in the place of one it was made from.

    Args:
        optimiser: Learns `old`.
        old: What was learnt.
        new: What shall be learnt.
        source: Row of `old` whose moments each row of `new` inherits, int64 [N]; -1 for a row that starts
            without.
    """
    for group in optimiser.param_groups:
        group["params"] = [new if value is old else value for value in group["params"]]
    state = optimiser.state.pop(old, None)
    if state is None:
        return
    fresh = source < 0
    for moment in MOMENTS:
        rows = state[moment][source.clamp_min(0)]
        rows[fresh] = 0
        state[moment] = rows
    optimiser.state[new] = state


def moments(optimiser: torch.optim.Optimizer, scene: Scene) -> dict[str, Tensor]:
    """The state of the optimiser as tensors named after the scene's parameters."""
    names = {value: name for name, value in scene.named_parameters()}
    return {
        f"{_PREFIX}{part}.{names[value]}": tensor
        for value, state in optimiser.state.items()
        for part, tensor in state.items()
    }


def restore_moments(optimiser: torch.optim.Optimizer, scene: Scene, state: dict[str, Tensor]) -> None:
    """Gives a new optimiser of the same stage what `moments` gave."""
    values = dict(scene.named_parameters())
    for key, tensor in state.items():
        if key.startswith(_PREFIX):
            part, name = key.removeprefix(_PREFIX).split(".", 1)
            value = values[name]
            # The fused optimiser goes through memory, so moments must lie as their parameter does.
            like = value.detach() if part in MOMENTS else tensor.to(value.device)
            optimiser.state.setdefault(value, {})[part] = torch.empty_like(like).copy_(tensor)
