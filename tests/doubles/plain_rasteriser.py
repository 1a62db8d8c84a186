"""Gaussian splatting written plainly in float64: every Gaussian on every pixel it could matter to, no tiles.

The yardstick of the fast rasteriser. Follows the formulas of the paper (Kerbl et al. 2023) and the constants
of docs/bundle.md, and shares no code with what it measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.bundle import Camera
from model_hosts.talking_gaussian.images import RgbImage
from model_hosts.talking_gaussian.model.deformation import Splats

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Projected:
    """Projected Gaussians, nearest first: centres [n, 2] in pixel indices, covariances [n, 2, 2], opacities
    [n], colours [n, 3], and index [n] of each in the splats."""

    centre: Doubles
    covariance: Doubles
    opacity: Doubles
    rgb: Doubles
    index: npt.NDArray[np.int64]


def project(splats: Splats, camera: Camera, width: int, height: int) -> Projected:
    """Projects and sorts by depth; leaves out what is nearer than 5 cm."""
    planes = splats.planes.astype(np.float64)
    n = planes.shape[1]
    position, turn = np.empty((n, 3)), np.empty((n, 3, 3))
    for segment in splats.segments:
        own = slice(segment.start, segment.stop)
        view = segment.view.astype(np.float64)
        position[own] = planes[:3, own].T @ view[:, :3].T + view[:, 3]
        turn[own] = view[:, :3]
    w, x, y, z = planes[6:10] / np.linalg.norm(planes[6:10], axis=0)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    axes = turn @ rotation * planes[3:6].T[:, None, :]
    sigma = axes @ axes.transpose(0, 2, 1)
    depth = position[:, 2]
    kept = np.flatnonzero(depth > 0.05)
    kept = kept[np.argsort(depth[kept], kind="stable")]
    position, sigma, depth = position[kept], sigma[kept], depth[kept]
    f = camera.focal
    margin = 0.15 * width / f, 0.15 * height / f
    tx = np.clip(position[:, 0] / depth, -camera.cx / f - margin[0], (width - camera.cx) / f + margin[0])
    ty = np.clip(position[:, 1] / depth, -camera.cy / f - margin[1], (height - camera.cy) / f + margin[1])
    jacobian = np.zeros((len(kept), 2, 3))
    jacobian[:, 0, 0] = jacobian[:, 1, 1] = f / depth
    jacobian[:, 0, 2], jacobian[:, 1, 2] = -f / depth * tx, -f / depth * ty
    covariance = jacobian @ sigma @ jacobian.transpose(0, 2, 1) + 0.3 * np.eye(2)
    centre = position[:, :2] / depth[:, None] * f + (camera.cx - 0.5, camera.cy - 0.5)
    return Projected(centre, covariance, np.exp(planes[10, kept]), planes[11:14, kept].T, kept)


def render(splats: Splats, camera: Camera, plate: RgbImage) -> Doubles:
    """The image [height, width, 3], not clipped."""
    height, width = plate.shape[:2]
    seen = project(splats, camera, width, height)
    image, transmittance = np.zeros((height, width, 3)), np.ones((height, width))
    finished = np.zeros((height, width), np.bool_)
    for centre, covariance, opacity, rgb in zip(
        seen.centre, seen.covariance, seen.opacity, seen.rgb, strict=True
    ):
        # 4.5 standard deviations: the opacity there is below 1/255 even for an opaque Gaussian.
        reach = 4.5 * np.sqrt(np.diag(covariance)) + 1
        x0, y0 = np.maximum(np.floor(centre - reach), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(centre + reach) + 1, (width, height)).astype(int)
        if x0 >= x1 or y0 >= y1:
            continue
        area = slice(y0, y1), slice(x0, x1)
        dx = np.arange(x0, x1)[None, :] - centre[0]
        dy = np.arange(y0, y1)[:, None] - centre[1]
        inverse = np.linalg.inv(covariance)
        power = -0.5 * (inverse[0, 0] * dx * dx + inverse[1, 1] * dy * dy) - inverse[0, 1] * dx * dy
        alpha = np.minimum(0.999, opacity * np.exp(power))
        alpha[alpha < 1 / 255] = 0
        after = transmittance[area] * (1 - alpha)
        finished[area] |= after < 1e-4
        alpha[finished[area]] = 0
        image[area] += (alpha * transmittance[area])[..., None] * rgb
        transmittance[area] *= 1 - alpha
    return image + transmittance[..., None] * (plate / 255.0)


def psnr(a: Doubles, b: Doubles) -> float:
    """Peak signal-to-noise ratio in dB of images in 0..1."""
    error = float(np.mean((np.clip(a, 0, 1) - np.clip(b, 0, 1)) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))
