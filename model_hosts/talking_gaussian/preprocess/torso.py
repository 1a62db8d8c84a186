"""How the shoulders move: a 2-D similarity of the torso in every frame, by direct alignment."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates, zoom

from model_hosts.talking_gaussian.preprocess.dataset import TORSO_PIVOT
from model_hosts.talking_gaussian.preprocess.flow import grey

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_LEVELS = ((12.0, 10), (4.0, 8), (1.5, 8))
"""Smoothing in pixels of 512, and steps."""
_SAMPLES = 6000
_ROBUST = 8.0
_LEAST_PIXELS = 400
_MOST = np.array([0.25, 0.25, 0.3, 0.35])
"""Shift in picture widths, log scale and turn beyond which a track is lost."""


def track_torso(
    frames: Iterable[ByteArray], key: int, picture: ByteArray, torso: Mask, progress: Callable[[float], None]
) -> FloatArray:
    """The torso track, float32 [T, 4]: shift in pixels, log scale, turn in radians; 0 in the key frame.

    Args:
        frames: All pictures, uint8 [h, w, 3].
        key: The key frame.
        picture: Its picture.
        torso: Where it shows clothes, bool [h, w].
        progress: Called with the number of frames done.
    """
    size = torso.shape
    scale = size[1] / 512
    inner = binary_erosion(torso, iterations=max(1, round(5 * scale)))
    edge = max(2, round(4 * scale))
    inner[-edge:], inner[:, :edge], inner[:, -edge:] = False, False, False
    levels = [_Level(grey(picture), inner, smoothing * scale, steps) for smoothing, steps in _LEVELS]
    tracks = []
    last = np.zeros(4)
    for index, frame in enumerate(frames):
        if inner.sum() >= _LEAST_PIXELS and index != key:
            image = grey(frame)
            # From where it was, and from the key frame: a torso that was lost is found again.
            guesses = [levels[0].align(image, start) for start in (last, np.zeros(4))]
            last = min(guesses, key=lambda guess: guess[0])[1]
            for level in levels[1:]:
                last = level.align(image, last)[1]
        elif index == key:
            last = np.zeros(4)
        tracks.append(last)
        progress(index + 1)
    return np.stack(tracks).astype(np.float32)


class _Level:
    """The key frame's torso at one smoothing, ready for Gauss-Newton (Baker and Matthews, 2004)."""

    def __init__(self, first: FloatArray, torso: Mask, smoothing: float, steps: int) -> None:
        self._smoothing, self._steps = smoothing, steps
        self._cell = max(1, int(smoothing // 3))
        soft = zoom(self._soft(first), self._cell, order=1, grid_mode=True, mode="nearest")
        soft = np.pad(soft, [(0, a - b) for a, b in zip(first.shape, soft.shape, strict=True)], mode="edge")
        down, across = np.gradient(soft)
        strength = np.hypot(across, down) * torso
        # The pixels that say most: edges of lapels, folds, patterns.
        best = np.argsort(-strength.ravel(), kind="stable")[: 3 * _SAMPLES : 3]
        rows, columns = np.divmod(best[strength.ravel()[best] > 0], torso.shape[1])
        self._width = torso.shape[1]
        self._pivot = np.array([torso.shape[1] / 2, TORSO_PIVOT * torso.shape[0]])
        self._at = np.stack([columns + 0.5, rows + 0.5], 1) - self._pivot
        self._value = soft[rows, columns]
        slope = np.stack([across[rows, columns], down[rows, columns]], 1).astype(np.float64)
        x, y = self._at.T
        # By shift x, shift y, log scale and turn.
        self._jacobian = np.stack(
            [slope[:, 0], slope[:, 1], slope[:, 0] * x + slope[:, 1] * y, slope[:, 1] * x - slope[:, 0] * y],
            1,
        )

    def _soft(self, picture: FloatArray) -> FloatArray:
        """The picture smoothed, in cells of so many pixels that nothing of it is lost."""
        cell = self._cell
        height, width = (side // cell for side in picture.shape)
        cells = picture[: height * cell, : width * cell].reshape(height, cell, width, cell).mean((1, 3))
        soft: FloatArray = gaussian_filter(cells, self._smoothing / cell)
        return soft

    def align(self, picture: FloatArray, start: Doubles) -> tuple[float, Doubles]:
        """How well the torso agrees with a picture, and its track there, from a guess."""
        if not len(self._at):
            return 0.0, start
        soft = self._soft(picture)
        track, best = start, (np.inf, start)
        for _ in range(self._steps):
            linear = np.exp(track[2]) * np.array(
                [[np.cos(track[3]), -np.sin(track[3])], [np.sin(track[3]), np.cos(track[3])]]
            )
            where = self._at @ linear.T + self._pivot + track[:2]
            read = map_coordinates(soft, (where / self._cell - 0.5).T[::-1], order=1, mode="nearest")
            error = self._value - read
            error -= np.median(error)
            size = float(np.abs(error).mean())
            if size > 1.02 * best[0]:
                break
            best = min(best, (size, track), key=lambda pair: pair[0])
            share = np.minimum(1, _ROBUST / (np.abs(error) + 1e-6))
            normal = (self._jacobian * share[:, None]).T @ self._jacobian
            normal += np.diag(1e-3 * np.diag(normal) + 1e-6)
            step = np.linalg.solve(normal, self._jacobian.T @ (share * error))
            track = track + step
            if np.abs(step * [1, 1, 200, 200]).max() < 0.01:
                break
        lost = np.abs(best[1] / _MOST / [self._width, self._width, 1, 1]).max() > 1
        return (np.inf, start) if lost else best
