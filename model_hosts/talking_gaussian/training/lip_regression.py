"""The regression of adaptation.py: Bayesian, linear in features of a kernel, channels and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.personal_lips import Opening

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NOISES = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Variances of what neither speech nor time explains."""
_BLOCKS = 5
_MARGIN = 10
_TIME_VARIANCE = 0.2
_TIME_SCALE = 25.0
_TIME_STEP = 12
_JITTER = 1e-5


@dataclass(frozen=True)
class Weights:
    """A solution.

    Attributes:
        kernel: Of the support's moments, `[M, L]`.
        channels: Of the channels, `[K, L]`.
    """

    kernel: Doubles
    channels: Doubles


@dataclass(frozen=True)
class LeftOut:
    """Codes of every frame by fits that had not seen the frames around it.

    Attributes:
        code: `[N, L]`.
        noise: The one of NOISES that did best.
    """

    code: Doubles
    noise: float


class Regression:
    """Lip codes of `N` frames from what was heard in them, one or several times.

    Args:
        kernels: Likeness of the frames to the support, `[N, M]` for each hearing.
        channels: Their channels, `[N, K]` for each hearing; their prior variance is in their scale.
        support: Likeness of the support to itself, `[M, M]`.
        truth: Lip codes, `[N, L]`.
        frames: Their places in time, `[N]`, rising.
    """

    def __init__(
        self,
        kernels: Sequence[Doubles],
        channels: Sequence[Doubles],
        support: Doubles,
        truth: Doubles,
        frames: Integers,
    ) -> None:
        self._root = _inverse_root(support)
        knots = np.arange(frames[0], frames[-1] + _TIME_STEP, _TIME_STEP, dtype=np.float64)
        time = _alike_in_time(frames, knots) @ _inverse_root(_alike_in_time(knots, knots))
        time *= np.sqrt(_TIME_VARIANCE)
        self._inputs = [
            np.concatenate([near @ self._root, heard, time], 1)
            for near, heard in zip(kernels, channels, strict=True)
        ]
        self._heard = len(support) + channels[0].shape[1]
        self._support = len(support)
        self._truth, self._frames = truth, frames
        self._mean = truth.mean(0)
        self._normal = self._sums(np.arange(len(frames)))

    def solve(self, noise: float) -> Weights:
        """Fits all frames."""
        found = _solved(self._normal, noise)
        return Weights(self._root @ found[: self._support], found[self._support : self._heard])

    def left_out(self, mouth: Opening) -> LeftOut:
        """Predicts blocks of the recording from the rest of it; the opening and the code choose the noise."""
        codes = {noise: np.zeros_like(self._truth) for noise in NOISES}
        for block in np.array_split(np.arange(len(self._frames)), _BLOCKS):
            first, last = self._frames[block[0]] - _MARGIN, self._frames[block[-1]] + _MARGIN
            near = np.flatnonzero((self._frames >= first) & (self._frames <= last))
            inner, outer = self._sums(near)
            normal = (self._normal[0] - inner, self._normal[1] - outer)
            for noise in NOISES:
                weights = _solved(normal, noise)[: self._heard]
                codes[noise][block] = self._mean + self._inputs[0][block, : self._heard] @ weights
        errors = {noise: self._error(code, mouth) for noise, code in codes.items()}
        best = min(errors, key=lambda noise: errors[noise])
        return LeftOut(codes[best], best)

    def _sums(self, rows: Integers) -> tuple[Doubles, Doubles]:
        targets = self._truth[rows] - self._mean
        parts = [inputs[rows] for inputs in self._inputs]
        return sum(one.T @ one for one in parts), sum(one.T @ targets for one in parts)

    def _error(self, code: Doubles, mouth: Opening) -> float:
        """Share of the motion that is missed, in the opening and in the components that move most."""
        missed = ((code - self._truth) ** 2).mean(0) / np.maximum(self._truth.var(0), 1e-9)
        opening = mouth.of(self._truth)
        wrong = float(((mouth.of(code) - opening) ** 2).mean() / max(float(opening.var()), 1e-9))
        return wrong + float(missed[:3].mean())


def _solved(normal: tuple[Doubles, Doubles], noise: float) -> Doubles:
    inner, outer = normal
    return np.asarray(np.linalg.solve(inner + noise * np.eye(len(inner)), outer))


def _inverse_root(matrix: Doubles) -> Doubles:
    values, axes = np.linalg.eigh(matrix + _JITTER * np.eye(len(matrix)))
    return np.asarray(axes / np.sqrt(np.maximum(values, _JITTER)))


def _alike_in_time(one: npt.ArrayLike, other: npt.ArrayLike) -> Doubles:
    apart = (np.asarray(one, np.float64)[:, None] - np.asarray(other, np.float64)) / _TIME_SCALE
    return np.asarray(np.exp(-0.5 * apart**2))
