"""The rasteriser for NVIDIA GPUs: gsplat, in the environment with the `cuda` extra only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gsplat
import numpy as np
import torch

from model_hosts.talking_gaussian.rendering.cuda_motion import multiply, quaternion
from model_hosts.talking_gaussian.rendering.limits import NEAR

if TYPE_CHECKING:
    # Types only: the machine that records gsplat's pictures has neither FFmpeg nor numba.
    from model_hosts.talking_gaussian.bundle import Camera, FloatArray
    from model_hosts.talking_gaussian.images import RgbImage
    from model_hosts.talking_gaussian.model.deformation import Splats
    from model_hosts.talking_gaussian.rendering.rasteriser import YuvImage

# BT.601, limited range: rows Y, Cb, Cr of R'G'B' in 0..1, and their offsets.
_MATRIX = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
_OFFSET = (16.5, 128.5, 128.5)


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
        self._matrix = torch.tensor(_MATRIX, device=self._device)
        self._offset = torch.tensor(_OFFSET, device=self._device)

    def draw_rgb(self, splats: Splats) -> FloatArray:
        """See `Rasteriser`."""
        with torch.no_grad():
            return np.asarray(self._draw(splats).cpu().numpy(), np.float32)

    def draw_yuv(self, splats: Splats) -> YuvImage:
        """See `Rasteriser`."""
        with torch.no_grad():
            yuv = self._draw(splats).clamp(0, 1) @ self._matrix.T
            halves = yuv[..., 1:].reshape(self._height // 2, 2, self._width // 2, 2, 2).mean((1, 3))
            luma = (yuv[..., 0] + self._offset[0]).to(torch.uint8).flatten()
            chroma = (halves + self._offset[1:]).to(torch.uint8).permute(2, 0, 1).flatten()
            planes = torch.cat([luma, chroma]).cpu().numpy()
        return np.asarray(planes, np.uint8).reshape(self._height * 3 // 2, self._width)

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
