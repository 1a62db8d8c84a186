"""What skin and hair of this person look like: colour models, read through a table of all colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_BITS = 5
_SPREAD = 15.0
"""Added to the variances: a table step of colour, and the noise of a codec."""


@dataclass(frozen=True)
class ColourModel:
    """How unlike a material every colour is: 0 for its mean; by table index, float32 [32768].

    Attributes:
        distance: Squared Mahalanobis distance in CIELAB.
        logarithm: Logarithm of the determinant of the covariance, so that models can be compared.
        lightness: Of the mean, 0..100.
    """

    distance: FloatArray
    logarithm: float
    lightness: float

    @property
    def unlikelihood(self) -> FloatArray:
        """Twice the negative log-likelihood, up to a constant; comparable between models."""
        unlikely: FloatArray = (self.distance + self.logarithm).astype(np.float32)
        return unlikely


def fit_colours(samples: ByteArray) -> ColourModel:
    """Fits a model to colours of the material, uint8 [n, 3] RGB, n > 3."""
    lab = to_lab(samples)
    mean = np.median(lab, 0)
    # The middle of the colours only: samples of hair hold some skin and some background.
    near = lab[np.linalg.norm(lab - mean, axis=1) <= np.quantile(np.linalg.norm(lab - mean, axis=1), 0.9)]
    covariance = np.cov(near.T) + _SPREAD * np.eye(3)
    away = _table() - near.mean(0)
    distance = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
    return ColourModel(
        distance.astype(np.float32), float(np.linalg.slogdet(covariance)[1]), float(near[:, 0].mean())
    )


def table_index(picture: ByteArray) -> npt.NDArray[np.uint16]:
    """Index of each pixel's colour in a model's table, uint16 [h, w]."""
    part = (picture >> (8 - _BITS)).astype(np.uint16)
    index = part[..., 0] << (2 * _BITS) | part[..., 1] << _BITS | part[..., 2]
    return index.astype(np.uint16)


def to_lab(colours: ByteArray | Doubles) -> Doubles:
    """CIELAB (D65) of sRGB colours 0..255, [n, 3]."""
    value = np.asarray(colours, np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    cube = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = cube.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@cache
def _table() -> Doubles:
    step = np.arange(2**_BITS) * 2.0 ** (8 - _BITS) + 2.0 ** (7 - _BITS)
    return to_lab(np.stack(np.meshgrid(step, step, step, indexing="ij"), -1).reshape(-1, 3))


_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
