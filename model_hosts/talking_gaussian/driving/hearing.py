"""What the performer hears in the audio: loudness and syllable peaks on a fixed grid, in constant memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

RATE = 100
"""Bins a second."""
_SMOOTHING = 5
_SYLLABLE = 18
_LOUD = 0.5
_REFERENCE_START = 0.03
_REFERENCE_FLOOR = 0.015
_REFERENCE_DECAY = 0.5 ** (1 / (8.0 * RATE))


class Loudness:
    """Loudness of a stream in bins of 10 ms, against the loudest of the last seconds.

    The bins do not depend on how the stream was cut into pieces.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._waiting = np.zeros(0)
        self._taken = 0
        self._reference = _REFERENCE_START
        self._first = -_SMOOTHING
        self._rms = np.zeros(_SMOOTHING)
        self._level = np.full(_SMOOTHING, _REFERENCE_START)

    @property
    def end(self) -> int:
        """Number of whole bins heard so far."""
        return self._first + len(self._rms)

    def push(self, samples: npt.NDArray[np.int16]) -> None:
        """Hears more samples."""
        self._waiting = np.concatenate([self._waiting, samples.astype(np.float64) / 32768.0])
        rms: list[float] = []
        while True:
            size = self._bin_end(self.end + len(rms)) - self._taken
            if size > len(self._waiting):
                break
            rms.append(float(np.sqrt(np.mean(self._waiting[:size] ** 2))))
            self._waiting = self._waiting[size:]
            self._taken += size
        self._append(rms)

    def finish(self) -> None:
        """Adds the last, partial bin and silence after it."""
        tail = [float(np.sqrt(np.mean(self._waiting**2)))] if len(self._waiting) else []
        self._waiting = np.zeros(0)
        self._append(tail + [0.0] * RATE)

    def forget(self, first: int) -> None:
        """Drops the bins before `first`, which nobody will ask for again."""
        drop = min(first - _SMOOTHING, self.end) - self._first
        if drop > 0:
            self._rms, self._level, self._first = self._rms[drop:], self._level[drop:], self._first + drop

    def relative(self, first: int, last: int) -> Doubles:
        """Loudness of the bins against the reference level, smoothed over 0.1 s, 0 to 1.2."""
        size = 2 * _SMOOTHING + 1
        kernel = np.hanning(size + 2)[1:-1]
        squares = self._window(self._rms, first - _SMOOTHING, last + _SMOOTHING) ** 2
        smooth = np.sqrt(np.convolve(squares, kernel / kernel.sum(), "valid"))
        level = np.maximum(self._window(self._level, first, last), _REFERENCE_FLOOR)
        return np.clip(1.25 * smooth / level, 0.0, 1.2)

    def peak(self, first: int, last: int) -> float:
        """Loudness of the syllable that is loudest in one of these bins, or 0 when there is none.

        Needs the bins up to a quarter of a second later.
        """
        around = self.relative(first - _SYLLABLE, last + _SYLLABLE)
        for offset in range(last - first):
            level = float(around[offset + _SYLLABLE])
            if level > _LOUD and level >= around[offset : offset + 2 * _SYLLABLE + 1].max():
                return level
        return 0.0

    def _append(self, rms: list[float]) -> None:
        level = []
        for value in rms:
            self._reference = max(value, self._reference * _REFERENCE_DECAY)
            level.append(self._reference)
        self._rms = np.concatenate([self._rms, rms])
        self._level = np.concatenate([self._level, level])

    def _window(self, values: Doubles, first: int, last: int) -> Doubles:
        found = np.zeros(last - first)
        low, high = max(first, self._first), min(last, self.end)
        if high > low:
            found[low - first : high - first] = values[low - self._first : high - self._first]
        return found

    def _bin_end(self, index: int) -> int:
        return (index + 1) * self._sample_rate // RATE
