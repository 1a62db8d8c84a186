"""Chooses what draws: an NVIDIA GPU when torch and gsplat are installed and see one, else the processor."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from model_hosts.talking_gaussian.rendering.avatar import MakeRasteriser
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser


@dataclass(frozen=True)
class Device:
    """What draws: `cpu` or the UUID of a GPU, and how its rasterisers are made."""

    name: str
    make_rasteriser: MakeRasteriser


def choose_device() -> Device:
    """The best device of this machine. Imports torch only where the environment has it."""
    if all(importlib.util.find_spec(name) for name in ("torch", "gsplat")):
        # Only here: the environment of machines without a GPU has no torch.
        from model_hosts.talking_gaussian.rendering import cuda  # noqa: PLC0415

        uuid = cuda.device_uuid()
        if uuid is not None:
            return Device(uuid, cuda.GsplatRasteriser)
    return Device("cpu", CpuRasteriser)
