"""Inference of one branch's deformation network, in blocks that stay in the processor's cache."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.bundle import OUTPUTS, Bundle, FloatArray
from model_hosts.talking_gaussian.model.features import static_inputs
from model_hosts.talking_gaussian.model.kernels import add_bias_relu, add_relu

BLOCK = 256
"""Gaussians evaluated together: 64 hidden units then take 64 KiB, which fits any level-2 cache."""


PLANE_OF_OUTPUT = np.array([0, 1, 2, 6, 7, 8, 9, 3, 4, 5, 10, 11, 12, 13])
"""The splat plane (xyz, log scale, quaternion, opacity logit, rgb) that each output of a network moves."""
_STEPS = np.repeat(np.array([0.01, 0.1, 0.1, 1.0, 0.1], np.float32), [3, 4, 3, 1, 3])[:, None]


class Weights(NamedTuple):
    """Layers of a network after the static part (see BranchNetwork)."""

    first: FloatArray
    hidden: FloatArray
    hidden_bias: FloatArray
    out: FloatArray


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
        weights: Of the layers: first [H, A + X], hidden [H, H] with bias [H], out [14, H] scaled and in the
            order of the planes.
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
        order = np.argsort(PLANE_OF_OUTPUT)
        out = (own["out.weight"] * _STEPS)[order]
        hidden = np.ascontiguousarray(own["hidden.weight"])
        return cls(Weights(first, hidden, own["hidden.bias"].copy(), out), encoded, gates)

    @staticmethod
    def bias(bundle: Bundle, branch: str) -> FloatArray:
        """The part [14, 1] of every Gaussian's deformation that never changes; to add to `rest`."""
        scaled: FloatArray = bundle.tensor(f"{branch}.net.out.bias")[:, None] * _STEPS
        return scaled[np.argsort(PLANE_OF_OUTPUT)]

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

    def evaluate(self, condition: FloatArray, rest: FloatArray, planes: FloatArray, scratch: Scratch) -> None:
        """Writes `rest` plus the deformation of every Gaussian.

        Args:
            condition: [A + X] lip code embedding and expression.
            rest: [14, count] at least, without deformation; rows as in PLANE_OF_OUTPUT.
            planes: [14, count] at least, filled up to `count`.
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
            columns = slice(start, start + width)
            np.add(last, rest[:, columns], out=planes[:, columns])
