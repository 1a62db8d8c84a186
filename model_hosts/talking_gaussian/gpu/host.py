"""The host process of this package, as `model_hosts.sdk.serve` starts it."""

from __future__ import annotations

from typing import ClassVar

from model_hosts.talking_gaussian.host import RenderHost


class CudaRenderHost(RenderHost):
    """Renders avatars on an NVIDIA GPU; where there is none it draws on the processor and says so."""

    name: ClassVar[str] = "talking_gaussian_cuda"
