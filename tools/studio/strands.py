"""Strands: polylines drawn as camera-facing ribbons (hair, brows, lashes)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.studio.mesh import Array, Morph


@dataclass(frozen=True)
class Strands:
    """n polylines of k points.

    Attributes:
        points: [n, k, 3] rest positions.
        shell: [n, k, 3] outward direction used for lighting.
        tone: [n, k] 0 dark to 1 light.
        occlusion: [n, k] share of the light that reaches the point.
        alpha: [n, k] coverage.
        width: [n, k] full width in decimetres.
        weights: [n, k, 2] (head, neck) skin weights.
        morph: motion of the points under the face units, where they follow the face.
    """

    points: Array
    shell: Array
    tone: Array
    occlusion: Array
    alpha: Array
    width: Array
    weights: Array
    morph: Morph | None = None

    def __post_init__(self) -> None:
        shape = self.points.shape[:2]
        for name in ("tone", "occlusion", "alpha", "width"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} is {getattr(self, name).shape}, the strands are {shape}")


def head_weights(shape: tuple[int, int]) -> Array:
    """Skin weights of strands that follow the head alone."""
    return np.broadcast_to(np.array([1.0, 0.0]), (*shape, 2))
