"""State of a training on disk, as safetensors: Gaussians, networks, optimiser moments, stage and step."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.training.scene import Scene

_MODEL, _OPTIMISER = "model.", "optimiser."


def save(path: Path, scene: Scene, optimiser: torch.optim.Optimizer, stage: str, step: int, key: str) -> None:
    """Writes a checkpoint, replacing the file in one step.

    Args:
        path: The file.
        scene: What is trained.
        optimiser: Of the current stage.
        stage: Its name.
        step: Steps of it that are done.
        key: Names data and settings; only the same training may go on from the file.
    """
    tensors = {_MODEL + name: value.detach().contiguous().cpu() for name, value in scene.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            tensors[f"{_OPTIMISER}{index}.{name}"] = value.detach().contiguous().cpu()
    fresh = path.with_name(path.name + ".new")
    save_file(tensors, fresh, metadata={"stage": stage, "step": str(step), "key": key})
    fresh.replace(path)


class Checkpoint:
    """A checkpoint read from disk.

    Raises:
        DatasetInvalid: The file is damaged or belongs to another training.
    """

    def __init__(self, path: Path, key: str) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                self._tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            self.stage, self.step = metadata["stage"], int(metadata["step"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise DatasetInvalid(f"{path.name} is no usable checkpoint ({error})") from error
        if metadata.get("key") != key:
            raise DatasetInvalid(f"{path.name} belongs to a training with other data or settings; remove it")

    def restore_scene(self, scene: Scene) -> None:
        """Puts Gaussians (as many as there were) and networks back."""
        state = {
            name.removeprefix(_MODEL): value
            for name, value in self._tensors.items()
            if name.startswith(_MODEL)
        }
        for name, branch in scene.branches.items():
            for part in ("xyz", "rgb", "sh", "log_scale", "quat", "opacity_logit"):
                if getattr(branch, part) is not None:
                    setattr(branch, part, nn.Parameter(state[f"{name}.{part}"].to(branch.xyz.device)))
            branch.first_rgb = state[f"{name}.first_rgb"].to(branch.xyz.device)
        scene.load_state_dict(state)

    def restore_optimiser(self, optimiser: torch.optim.Optimizer) -> None:
        """Puts the moments back into a fresh optimiser of the same stage."""
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in self._tensors.items():
            if name.startswith(_OPTIMISER):
                index, part = name.removeprefix(_OPTIMISER).split(".", 1)
                moments.setdefault(int(index), {})[part] = value
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
