"""Chooses what draws: an NVIDIA GPU when torch and gsplat are installed and see one, else the processor."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from model_hosts.talking_gaussian.rendering.avatar import MakePainter, MakeRasteriser
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser


@dataclass(frozen=True)
class Device:
    """What draws.

    Attributes:
        name: `cpu` or the UUID of a GPU.
        make_rasteriser: Makes what draws one frame.
        make_painter: Makes what draws many frames of an avatar with our own networks at once, on a GPU.
    """

    name: str
    make_rasteriser: MakeRasteriser
    make_painter: MakePainter | None = None


def choose_device() -> Device:
    """The best device of this machine. Imports torch only where the environment has it."""
    if all(importlib.util.find_spec(name) for name in ("torch", "gsplat")):
        # Only here: the environment of machines without a GPU has no torch.
        from model_hosts.talking_gaussian.rendering import cuda, cuda_painter  # noqa: PLC0415

        uuid = cuda.device_uuid()
        if uuid is not None:
            return Device(uuid, cuda.GsplatRasteriser, cuda_painter.CudaPainter)
    return Device("cpu", CpuRasteriser)
