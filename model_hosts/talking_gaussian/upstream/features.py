"""What the original's motion networks compute from positions alone: once for each avatar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.upstream.model import (
    BOUND,
    CODE,
    ENCODING,
    PLANES,
    level_sides,
    level_starts,
)

FloatArray = npt.NDArray[np.float32]

_AXES = {"xy": (0, 1), "yz": (1, 2), "xz": (0, 2)}


class StaticInputs(NamedTuple):
    """The part of a first layer that no frame changes, as `BranchNetwork` takes it.

    Attributes:
        encoded: [H, N] what the tri-plane features add.
        gates: [K, N] what the frame's K inputs are multiplied by for each Gaussian.
        weights: [H, K] the layer's weights for these inputs.
    """

    encoded: FloatArray
    gates: FloatArray
    weights: FloatArray


def triplane_features(branch: str, network: Mapping[str, FloatArray], xyz: FloatArray) -> FloatArray:
    """Samples the tri-planes bilinearly.

    With the original's sizes its hash tables never collide, so each level is a plain grid: node
    u * scale + 0.5 for u in 0..1, rows of `side` nodes. What lies outside the cube gets zeros, plane by
    plane.

    Args:
        branch: `face` or `mouth`.
        network: Its tensors `encoder_*.embeddings`, by name.
        xyz: float32 [N, 3], metres.

    Returns:
        float32 [N, 36], plane by plane, level by level.
    """
    unit = (xyz.astype(np.float64) + BOUND) / (2 * BOUND)
    starts = level_starts(branch)
    features = []
    for plane in PLANES:
        across, down = (unit[:, axis] for axis in _AXES[plane])
        inside = (across >= 0) & (across <= 1) & (down >= 0) & (down <= 1)
        table = network[f"encoder_{plane}.embeddings"][:, 0]
        for (scale, side), start in zip(level_sides(branch), starts, strict=False):
            grid = table[start : start + side * side].reshape(side, side)
            features.append(inside * _bilinear(grid, across * scale + 0.5, down * scale + 0.5))
    return np.stack(features, 1).astype(np.float32)


def _bilinear(
    grid: FloatArray, column: npt.NDArray[np.float64], row: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    last = len(grid) - 2
    left, top = (np.clip(np.floor(place), 0, last).astype(np.int64) for place in (column, row))
    x, y = column - left, row - top
    above = grid[top, left] * (1 - x) + grid[top, left + 1] * x
    below = grid[top + 1, left] * (1 - x) + grid[top + 1, left + 1] * x
    return np.asarray(above * (1 - y) + below * y)


def static_inputs(branch: str, network: Mapping[str, FloatArray], xyz: FloatArray) -> StaticInputs:
    """The static part of a branch's first layer.

    The face multiplies its audio code and its expression by attention vectors that depend on the place; the
    mouth takes the code as it is.
    """
    features = triplane_features(branch, network, xyz)
    first = network["sigma_net.net.0.weight"]
    if branch == "face":
        audio = perceptron(network, "aud_ch_att_net", features)
        expression = np.maximum(perceptron(network, "eye_att_net", features), 0)
        gates = np.concatenate([audio, expression], 1).T
    else:
        gates = np.ones((CODE, len(xyz)), np.float32)
    return StaticInputs(
        np.ascontiguousarray(first[:, :ENCODING] @ features.T, np.float32),
        np.ascontiguousarray(gates, np.float32),
        np.ascontiguousarray(first[:, ENCODING:], np.float32),
    )


def perceptron(network: Mapping[str, FloatArray], name: str, values: FloatArray) -> FloatArray:
    """Two layers without biases, ReLU between: [N, inputs] to [N, outputs]."""
    hidden = np.maximum(values @ network[f"{name}.net.0.weight"].T, 0)
    return np.asarray(hidden @ network[f"{name}.net.1.weight"].T, np.float32)
