"""An encoder double and a voice for it: sounds whose features, and a person's lips, follow from envelopes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.whisper_features import AHEAD, FEATURES, HOP, PAST

Doubles = npt.NDArray[np.float64]

RATE = 16000
WINDOW = PAST + HOP + AHEAD
TONES = np.array([310.0, 640.0, 1090.0, 1730.0, 2650.0, 4100.0])
"""Hertz of the partials; each swells and fades on its own."""
_MARGIN = 120


class Ears:
    """Hears how strong each partial is and writes it into random directions of its features.

    Args:
        seed: Of the directions.
    """

    def __init__(self, seed: int = 7) -> None:
        random = np.random.default_rng(seed)
        self._directions = random.normal(size=(len(TONES), FEATURES))
        self._offset = random.normal(size=FEATURES)
        time = np.arange(320) / RATE
        self._probe = np.exp(-2j * np.pi * TONES[:, None] * time)

    def encode(self, samples: npt.ArrayLike) -> npt.NDArray[np.float32]:
        heard = np.asarray(samples)[_MARGIN : _MARGIN + WINDOW * 320].reshape(WINDOW, 320)
        strength = np.abs(heard @ self._probe.T) / 160.0
        return np.asarray(np.tanh(10.0 * strength @ self._directions) + self._offset, np.float32)

    @property
    def silence(self) -> npt.NDArray[np.float32]:
        return self.encode(np.zeros(WINDOW * 320 + 2 * _MARGIN))


def envelopes(seconds: float, seed: int, rate: int = 100) -> Doubles:
    """Strengths of the partials, `[rate * seconds, len(TONES)]`, 0 to 0.1, changing a few times a second."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    knots = random.uniform(0.0, 0.1, (round(seconds * 5) + 2, len(TONES)))
    places = np.arange(count) / rate * 5
    return np.stack([np.interp(places, np.arange(len(knots)), column) for column in knots.T], 1)


def voiced(strengths: Doubles, rate: int = 100) -> npt.NDArray[np.int16]:
    """The sound of partials of these strengths, 16 kHz."""
    count = len(strengths) * RATE // rate
    time = np.arange(count) / RATE
    places = time * rate
    sound = np.zeros(count)
    for tone, column in zip(TONES, strengths.T, strict=True):
        sound += np.interp(places, np.arange(len(column)), column) * np.sin(2 * np.pi * tone * time)
    return (32767 * np.clip(sound, -1, 1)).astype(np.int16)
