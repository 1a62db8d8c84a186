"""Chooses what draws: an NVIDIA GPU when torch and gsplat are installed and see one, else the processor."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass

from model_hosts.talking_gaussian.rendering.avatar import MakePainter, MakeRasteriser
from model_hosts.talking_gaussian.rendering.rasteriser import CpuRasteriser

_log = logging.getLogger(__name__)


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
    """The best device of this machine; a GPU's rasteriser is compiled where that was never done (a minute).

    Imports torch only where the environment has it.
    """
    if all(importlib.util.find_spec(name) for name in ("torch", "gsplat")):
        # Only here: the environment of machines without a GPU has no torch.
        from model_hosts.talking_gaussian.rendering import cuda, cuda_painter  # noqa: PLC0415
        from model_hosts.talking_gaussian.training.cuda import (  # noqa: PLC0415
            DeviceUnsuitableError,
            check_cuda,
        )

        uuid = cuda.device_uuid()
        if uuid is not None:
            try:
                check_cuda()
                return Device(uuid, cuda.GsplatRasteriser, cuda_painter.CudaPainter)
            except DeviceUnsuitableError as error:
                _log.warning("the GPU cannot draw: %s", error)
    return Device("cpu", CpuRasteriser)
