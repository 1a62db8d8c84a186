"""What an avatar is trained on: the device that the caller asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model_hosts.talking_gaussian.training.cuda import DeviceUnsuitableError


@dataclass(frozen=True)
class Gpu:
    """A GPU as a caller may name it: by index, UUID (`GPU-…`) or name."""

    index: int
    uuid: str
    name: str

    def is_called(self, wanted: str) -> bool:
        """Whether a caller means this one; part of the name will do."""
        wanted = wanted.strip().lower()
        uuid = self.uuid.lower()
        return wanted in {str(self.index), uuid, f"gpu-{uuid}"} or wanted in self.name.lower()


def gpus() -> list[Gpu]:
    """The GPUs that torch can use."""
    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(Gpu(index, str(getattr(properties, "uuid", "")), properties.name))
    return found


def choose_device(wanted: str) -> torch.device:
    """The device that a caller asked for.

    Args:
        wanted: `auto` or nothing for a GPU when there is one, `cpu`, or a GPU by index, UUID or name.

    Raises:
        DeviceUnsuitableError: There is no such device; the message says which there are.
    """
    there = gpus()
    if wanted.lower() in {"", "auto"}:
        return torch.device("cuda", there[0].index) if there else torch.device("cpu")
    if wanted.lower() == "cpu":
        return torch.device("cpu")
    for gpu in there:
        if gpu.is_called(wanted):
            return torch.device("cuda", gpu.index)
    names = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in there)
    raise DeviceUnsuitableError(
        f"there is no GPU '{wanted}' here; there is {names}"
        if there
        else "there is no GPU here, only the cpu"
    )


def device_name(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def describe_devices() -> str:
    """What this host can train on, in words."""
    return ", ".join(gpu.name for gpu in gpus()) or "cpu"
