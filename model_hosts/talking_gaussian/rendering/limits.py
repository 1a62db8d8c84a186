"""Constants of splatting that all rasterisers share; those of gsplat, which trains the avatars."""

from __future__ import annotations

NEAR = 0.05
"""Gaussians nearer than this many metres are not drawn."""
DILATION = 0.3
"""Square pixels added to each projected variance, so that no Gaussian falls between pixels."""
MAX_ALPHA = 0.999
"""A Gaussian never hides a pixel completely."""
LOG_255 = 5.5412635
"""ln 255: an opacity below 1/255 is skipped."""
OPAQUE = 1e-4
"""A pixel with less transmittance than this is finished."""
