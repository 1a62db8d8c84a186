"""Inference of one branch's deformation network, in blocks that stay in the processor's cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.bundle import OUTPUTS, Bundle, FloatArray
from model_hosts.talking_gaussian.model.features import static_inputs
from model_hosts.talking_gaussian.model.kernels import add_bias_relu, add_relu

BLOCK = 512
"""Gaussians evaluated together: 64 hidden units then take 128 KiB, which fits any level-2 cache."""


class Weights(NamedTuple):
    """Layers of a network after the static part (see BranchNetwork)."""

    first: FloatArray
    hidden: FloatArray
    hidden_bias: FloatArray
    out: FloatArray
    out_bias: FloatArray


class Scratch:
    """Activations of one evaluation; one for each thread."""

    def __init__(self, hidden: int) -> None:
        self._rows = (hidden, hidden, OUTPUTS)
        self._whole = self._make(BLOCK)

    def of_width(self, width: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Contiguous arrays for the layers' results of a block."""
        return self._whole if width == BLOCK else self._make(width)

    def _make(self, width: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        first, second, last = (np.empty((rows, width), np.float32) for rows in self._rows)
        return first, second, last


class BranchNetwork:
    """The network of a branch for some of its Gaussians. Immutable, so threads may share it.

    Args:
        weights: Of the layers: first [H, A + X], hidden [H, H] with bias [H], out [14, H] with bias [14].
        encoded: [H, N] static part of the first layer.
        gates: [A + X, N] what the condition is multiplied by.
    """

    def __init__(self, weights: Weights, encoded: FloatArray, gates: FloatArray) -> None:
        self._weights = weights
        self.count = encoded.shape[1]
        # Each block is copied into an array of its own: strided slices of the planes would cost TLB misses.
        self._blocks = [
            (
                start,
                np.ascontiguousarray(gates[:, start : start + BLOCK]),
                np.ascontiguousarray(encoded[:, start : start + BLOCK]),
            )
            for start in range(0, self.count, BLOCK)
        ]

    @classmethod
    def load(cls, bundle: Bundle, branch: str) -> BranchNetwork:
        """The network of all Gaussians of a branch, in the order of the bundle."""
        own = bundle.group(f"{branch}.net.")
        encoded, gates, first = static_inputs(bundle, branch)
        names = "hidden.weight", "hidden.bias", "out.weight", "out.bias"
        return cls(Weights(first, *(np.array(own[name], np.float32) for name in names)), encoded, gates)

    @property
    def hidden(self) -> int:
        """Width of the network."""
        return len(self._weights.hidden_bias)

    def only(self, chosen: npt.NDArray[np.int64]) -> BranchNetwork:
        """The same network for these of its Gaussians, in this order."""
        if not self._blocks:
            return self
        gates = np.concatenate([block[1] for block in self._blocks], 1)
        encoded = np.concatenate([block[2] for block in self._blocks], 1)
        return BranchNetwork(self._weights, encoded[:, chosen], gates[:, chosen])

    def evaluate(self, condition: FloatArray, out: FloatArray, scratch: Scratch) -> None:
        """Writes the 14 raw outputs of every Gaussian.

        Args:
            condition: [A + X] lip code embedding and expression.
            out: [14, count], filled.
            scratch: Of the calling thread.
        """
        weights = self._weights
        first_weight = weights.first * condition
        for start, gates, encoded in self._blocks:
            width = gates.shape[1]
            first, second, last = scratch.of_width(width)
            np.dot(first_weight, gates, out=first)
            add_relu(first, encoded)
            np.dot(weights.hidden, first, out=second)
            add_bias_relu(second, weights.hidden_bias)
            np.dot(weights.out, second, out=last)
            np.add(last, weights.out_bias[:, None], out=out[:, start : start + width])
