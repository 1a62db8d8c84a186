"""The rasteriser for NVIDIA GPUs: gsplat, in the environment with the `cuda` extra only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gsplat
import numpy as np
import torch

from model_hosts.talking_gaussian.rendering.cuda_colours import yuv_planes
from model_hosts.talking_gaussian.rendering.limits import NEAR
from model_hosts.talking_gaussian.rendering.quaternions import multiply, quaternion

if TYPE_CHECKING:
    # Types only: the machine that records gsplat's pictures has neither FFmpeg nor numba.
    from model_hosts.talking_gaussian.bundle import Camera, FloatArray
    from model_hosts.talking_gaussian.images import RgbImage
    from model_hosts.talking_gaussian.model.deformation import Splats
    from model_hosts.talking_gaussian.rendering.rasteriser import YuvImage


def device_uuid() -> str | None:
    """The UUID of the GPU that torch would use; None when it sees none."""
    if not torch.cuda.is_available():
        return None
    return f"GPU-{torch.cuda.get_device_properties(0).uuid}"


class GsplatRasteriser:
    """See `Rasteriser`; draws with gsplat on the current CUDA device.

    Args:
        camera: Of the avatar.
        plate: Background, uint8 [height, width, 3].
    """

    def __init__(self, camera: Camera, plate: RgbImage) -> None:
        self._height, self._width = plate.shape[:2]
        self._device = torch.device("cuda")
        self._plate = torch.tensor(plate, device=self._device).float() / 255
        intrinsics = [[camera.focal, 0.0, camera.cx], [0.0, camera.focal, camera.cy], [0.0, 0.0, 1.0]]
        self._intrinsics = torch.tensor([intrinsics], device=self._device)
        self._view = torch.eye(4, device=self._device)[None]

    def draw_rgb(self, splats: Splats) -> FloatArray:
        """See `Rasteriser`."""
        with torch.no_grad():
            return np.asarray(self._draw(splats).cpu().numpy(), np.float32)

    def draw_yuv(self, splats: Splats) -> YuvImage:
        """See `Rasteriser`."""
        with torch.no_grad():
            planes = yuv_planes(self._draw(splats).clamp(0, 1)[None])[0]
            return np.asarray(planes.cpu().numpy(), np.uint8)

    def _draw(self, splats: Splats) -> torch.Tensor:
        """The image [height, width, 3] on the GPU."""
        planes = torch.from_numpy(splats.planes).to(self._device)
        centres, turns = planes[0:3].T.clone(), planes[6:10].T.clone()
        for segment in splats.segments:
            own = slice(segment.start, segment.stop)
            view = torch.tensor(segment.view, device=self._device)
            centres[own] = centres[own] @ view[:, :3].T + view[:, 3]
            turn = torch.from_numpy(quaternion(segment.view[:, :3])).to(self._device)
            turns[own] = multiply(turn, turns[own])
        colours, alphas, _ = gsplat.rasterization(
            centres,
            turns,
            planes[3:6].T.contiguous(),
            planes[10].exp(),
            planes[11:14].T.contiguous(),
            self._view,
            self._intrinsics,
            self._width,
            self._height,
            near_plane=NEAR,
            packed=False,
        )
        return colours[0] + (1 - alphas[0]) * self._plate
