"""Inference of one branch's deformation network, in blocks that stay in the processor's cache."""

from __future__ import annotations

import numpy as np

from model_hosts.talking_gaussian.bundle import OUTPUTS, Bundle, FloatArray
from model_hosts.talking_gaussian.model.features import static_inputs
from model_hosts.talking_gaussian.model.kernels import add_bias_relu, add_relu

BLOCK = 512
"""Gaussians evaluated together: 64 hidden units then take 128 KiB, which fits any level-2 cache."""


class Scratch:
    """Activations of one evaluation; one for each thread."""

    def __init__(self, hidden: int) -> None:
        self.first = np.empty((hidden, BLOCK), np.float32)
        self.second = np.empty((hidden, BLOCK), np.float32)
        self.out = np.empty((OUTPUTS, BLOCK), np.float32)


class BranchNetwork:
    """The network of a branch for a fixed choice of its Gaussians. Immutable, so threads may share it."""

    def __init__(self, bundle: Bundle, branch: str) -> None:
        own = bundle.group(f"{branch}.net.")
        self.encoded, self.gates, self.first_weight = static_inputs(bundle, branch)
        self.hidden_weight = np.ascontiguousarray(own["hidden.weight"], np.float32)
        self.hidden_bias = np.ascontiguousarray(own["hidden.bias"], np.float32)
        self.out_weight = np.ascontiguousarray(own["out.weight"], np.float32)
        self.out_bias = np.ascontiguousarray(own["out.bias"], np.float32)
        self.select(np.arange(self.encoded.shape[1]))

    @property
    def hidden(self) -> int:
        """Width of the network."""
        return int(self.hidden_weight.shape[0])

    @property
    def inputs(self) -> int:
        """Length of the condition."""
        return int(self.first_weight.shape[1])

    def select(self, chosen: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Evaluates only these Gaussians from now on, in this order."""
        self.count = len(chosen)
        starts = range(0, self.count, BLOCK)
        # Each block is copied into an array of its own: strided slices of the planes would cost TLB misses.
        self._blocks = [
            (
                start,
                np.ascontiguousarray(self.gates[:, chosen[start : start + BLOCK]]),
                np.ascontiguousarray(self.encoded[:, chosen[start : start + BLOCK]]),
            )
            for start in starts
        ]

    def evaluate(self, condition: FloatArray, out: FloatArray, scratch: Scratch) -> None:
        """Writes the 14 raw outputs of every chosen Gaussian.

        Args:
            condition: [A + X] lip code embedding and expression.
            out: [14, count], filled.
            scratch: Of the calling thread.
        """
        weight = self.first_weight * condition
        for start, gates, encoded in self._blocks:
            width = gates.shape[1]
            whole = width == BLOCK
            first = scratch.first if whole else np.empty((self.hidden, width), np.float32)
            second = scratch.second if whole else np.empty((self.hidden, width), np.float32)
            last = scratch.out if whole else np.empty((OUTPUTS, width), np.float32)
            np.dot(weight, gates, out=first)
            add_relu(first, encoded)
            np.dot(self.hidden_weight, first, out=second)
            add_bias_relu(second, self.hidden_bias)
            np.dot(self.out_weight, second, out=last)
            np.add(last, self.out_bias[:, None], out=out[:, start : start + width])
