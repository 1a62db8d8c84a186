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
    """AdamW over what a stage learns; each group keeps its full rate under `base`.

    All rates are tensors on the device, and all moments exist from the start, so that a CUDA graph can hold
    a step.
    """
    by_rate: dict[float, list[nn.Parameter]] = {rates.network: list(scene.embed.parameters())}
    for name in branches:
        branch = scene.branches[name]
        for part, value in branch.rows.items():
            by_rate.setdefault(getattr(rates, part), []).append(value)
        for key, value in branch.net.named_parameters():
            rate = rates.planes if key.startswith("planes.") else rates.network
            by_rate.setdefault(rate, []).append(value)
    if scene.plate is not None and "torso" in branches:
        by_rate.setdefault(rates.plate, []).append(scene.plate)
    device = scene.embed.weight.device
    groups = [
        {"params": values, "base": rate, "lr": torch.tensor(rate, device=device)}
        for rate, values in by_rate.items()
    ]
    # Fused, it also leaves out steps whose `found_inf` is set, without a GPU having to be waited for.
    optimiser = torch.optim.AdamW(
        groups,
        lr=torch.tensor(1e-3, device=device),
        betas=_BETAS,
        eps=1e-15,
        weight_decay=0.0,
        fused=True,
        capturable=device.type == "cuda",
    )
    for values in by_rate.values():
        for value in values:
            optimiser.state[value] = _at_start(value)
    return optimiser


def _at_start(value: nn.Parameter) -> dict[str, Tensor]:
    like = value.detach()
    return {"step": torch.zeros((), device=value.device)} | {part: torch.zeros_like(like) for part in MOMENTS}


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
    state = optimiser.state.pop(old)
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
            optimiser.state[value][part] = torch.empty_like(like).copy_(tensor)
