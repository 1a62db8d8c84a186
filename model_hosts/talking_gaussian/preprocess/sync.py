"""How far sound and lips are apart: the shift at which the sound predicts the lips best.

For each shift a ridge regression from the sound around a frame to the opening of the mouth is fitted on four
fifths of the clip and judged on the rest. Where sound and picture do not belong together, none stands out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.whisper_features import (
    FEATURE_RATE,
    FeatureStream,
    WhisperEncoder,
    log_mel,
    mel_filters,
)
from model_hosts.talking_gaussian.preprocess.sound import SAMPLE_RATE, Samples
from model_hosts.talking_gaussian.preprocess.source import FPS

Doubles = npt.NDArray[np.float64]

REACH = 12
"""Shifts that are tried, in frames to either side."""
NATURAL = 0.04
"""Seconds by which lips are ahead of their sound, as measured here, when both are recorded together."""
_STEPS = FEATURE_RATE // FPS
_DIMS = 16
_TAPS = (-8, -4, -2, 0, 2, 4, 8)
_RIDGE = 0.5
_FOLDS = 5
_GUARD = 15
_MOST_FRAMES = 2500
_LEAST_FRAMES = 150
_CHANCES = 8
_LEAST_FIT, _ABOVE_CHANCE = 0.2, 0.1
_MEL_MARGIN = 120


@dataclass(frozen=True)
class Sync:
    """How sound and lips fit together.

    Attributes:
        lags: Shifts in seconds, [K]: the sound comes that much later than the lips.
        fit: Correlation of the predicted with the seen mouth for each shift, [K].
        offset: By how many seconds the sound comes too late.
        strength: Correlation at the best shift.
        chance: The most that sound from elsewhere in the clip reaches.
        clear: Whether lips and sound certainly belong together.
        judged: Whether the clip is long enough to tell.
    """

    lags: Doubles
    fit: Doubles
    offset: float
    strength: float
    chance: float
    clear: bool
    judged: bool


def audio_features(samples: Samples, encoder: Path | None) -> Doubles:
    """Features of sound at 50 a second, [N, D]: of Whisper's encoder, or of a spectrogram without one."""
    if encoder is not None:
        stream = FeatureStream(WhisperEncoder(encoder, threads=1), SAMPLE_RATE)
        stream.push(samples)
        return stream.features(0, len(samples) * FEATURE_RATE // SAMPLE_RATE).astype(np.float64)
    padded = np.pad(samples.astype(np.float64) / 32768, _MEL_MARGIN)
    mel = log_mel(padded, mel_filters()).T.astype(np.float64)
    return np.asarray(mel[: len(mel) // 2 * 2].reshape(-1, 2, mel.shape[1]).mean(1))


def measure(features: Doubles, mouth: Doubles) -> Sync:
    """Finds the shift between sound and mouth.

    Args:
        features: Of the sound, [N, D] at 50 a second.
        mouth: How far it is open in each frame, [T].
    """
    count = min(len(mouth), _MOST_FRAMES)
    reduced = _principal(features)
    target = (mouth[:count] - mouth[:count].mean()) / (mouth[:count].std() + 1e-9)
    shifts = np.arange(-REACH, REACH + 1) * _STEPS
    fit = np.array([_predictability(reduced, target, int(shift)) for shift in shifts])
    best = int(fit.argmax())
    place = float(best)
    if 0 < best < len(shifts) - 1:
        # The fit rises and falls as a parabola near its top.
        low, middle, high = fit[best - 1 : best + 2]
        place += 0.5 * (low - high) / min(low - 2 * middle + high, -1e-9)
    offset = float(place - REACH) / FPS - NATURAL
    # Sound of another moment: what a match by chance reaches in this clip.
    away = np.linspace(0, len(reduced), _CHANCES + 2).astype(int)[1:-1]
    chance = max(_predictability(np.roll(reduced, int(turn), 0), target, 0) for turn in away)
    strength, judged = float(fit[best]), count >= _LEAST_FRAMES
    clear = judged and strength > max(_LEAST_FIT, chance + _ABOVE_CHANCE)
    return Sync(shifts / FEATURE_RATE, fit, offset, strength, chance, clear, judged)


def _principal(features: Doubles) -> Doubles:
    """Principal components, half-whitened."""
    centred = features - features.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = vectors[:, ::-1][:, :_DIMS]
    projected = centred @ kept
    scaled: Doubles = projected / np.sqrt(np.sqrt(np.maximum(values[::-1][:_DIMS], 1e-9)))
    return scaled


def _predictability(features: Doubles, target: Doubles, shift: int) -> float:
    """Correlation of mouth and prediction when the sound is read `shift` features later."""
    count = len(target)
    at = np.arange(count) * _STEPS + shift
    near = np.concatenate([features[np.clip(at + tap, 0, len(features) - 1)] for tap in _TAPS], 1)
    near = (near - near.mean(0)) / (near.std(0) + 1e-6)
    folds = np.array_split(np.arange(count), _FOLDS)
    normals, rights = [], []
    for fold in folds:
        # What is near the judged part is left out as well: speech does not change at once.
        near_it = slice(max(0, fold[0] - _GUARD), fold[-1] + _GUARD)
        normals.append(near.T @ near - near[near_it].T @ near[near_it])
        rights.append(near.T @ target - near[near_it].T @ target[near_it])
    normal = np.stack(normals) + _RIDGE * count * np.eye(near.shape[1])
    weights = np.linalg.solve(normal, np.stack(rights)[..., None])[..., 0]
    predicted = np.concatenate([near[fold] @ weight for fold, weight in zip(folds, weights, strict=True)])
    return _correlation(predicted, target)


def _correlation(a: Doubles, b: Doubles) -> float:
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread > 1e-12 else 0.0
