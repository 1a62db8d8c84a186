"""Phonemes with their times to articulation channels, and channels to the mouth's face units.

Every sound pulls each channel towards its target with a strength that falls off in time; the mouth is the
weighted mean (dominance model, see phonemes). The pull ends REACH seconds from the sound, so a moment of
the mouth depends only on the sounds at most LOOK_AHEAD seconds later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.phonemes import CHANNELS, GESTURES, SILENCE, gestures_of
from model_hosts.talking_gaussian.driving.units import UNIT_INDEX, UNIT_NAMES, columns

Doubles = npt.NDArray[np.float64]

RATE = 100
"""Samples a second of the articulation grid."""
REACH = 0.28
"""Seconds from a sound beyond which it does not move the mouth."""
LOOK_AHEAD = 0.36
"""Seconds of sounds that must be known ahead of a moment: REACH, a closure that widens, and the smoothing."""

_CHANNEL = {name: index for index, name in enumerate(CHANNELS)}
_SMOOTHING = {"close": 0.011, "tuck": 0.013}
_SMOOTHING_DEFAULT = 0.019
_TAPS = 5
_BASE_WEIGHT = 0.02
_SHORT_PAUSE, _LONG_PAUSE = 0.09, 0.24
_STRESS = (0.82, 1.0, 1.2)
_EDGE = 0.06
_LONGEST_CONSONANT = 0.18

_LIP_GAP_CLOSED = 0.0446
_LIP_GAP = {
    "cheekPuff": -0.033,
    "jawForward": 0.041,
    "jawOpen": 1.0,
    "mouthClose": -1.0,
    "mouthDimple": 0.0055,
    "mouthFunnel": 0.377,
    "mouthLeft": -0.039,
    "mouthLowerDown": 0.056,
    "mouthPress": -0.036,
    "mouthPucker": -0.060,
    "mouthRight": -0.039,
    "mouthRollLower": -0.095,
    "mouthRollUpper": -0.045,
    "mouthShrugLower": -0.145,
    "mouthShrugUpper": 0.105,
    "mouthSmile": -0.041,
    "mouthStretch": 0.007,
    "mouthUpperUp": 0.072,
}


@dataclass(frozen=True, slots=True)
class Phone:
    """A phoneme with its place in time.

    Attributes:
        symbol: IPA as the synthesiser writes it; `_` for silence.
        start: Seconds.
        end: Seconds.
        stress: 0 none, 1 secondary, 2 primary.
    """

    symbol: str
    start: float
    end: float
    stress: int = 0


@dataclass(frozen=True, slots=True)
class _Segment:
    """A gesture with its plateau in time, its targets and pulls scaled."""

    low: float
    high: float
    target: Doubles
    strength: Doubles
    reach: Doubles


def lip_gap(units: npt.ArrayLike) -> Doubles:
    """Height of the lip opening at the middle of the mouth.

    Linear in the units; measured between the inner margins of the lips of the CC0 face-unit mesh that the
    studio draws.

    Args:
        units: `[..., 52]`.

    Returns:
        `[...]`, in units of the opening that `jawOpen` = 1 makes (34 mm); 0.045 with the face at rest.
    """
    return np.asarray(np.asarray(units, np.float64) @ _GAP_WEIGHTS + _LIP_GAP_CLOSED)


def channels(phones: Sequence[Phone], first: int, count: int) -> Doubles:
    """Articulation channels on the grid of RATE samples a second.

    Args:
        phones: Phonemes in time order, at least all within LOOK_AHEAD of the moments asked for; more make no
            difference.
        first: Index of the first sample; sample `i` is the mouth at second `i / RATE`.
        count: Number of samples.

    Returns:
        `[count, len(CHANNELS)]`.
    """
    times = (first - _TAPS + np.arange(count + 2 * _TAPS)) / RATE
    numerator = np.tile(_BASE_WEIGHT * RESTING, (len(times), 1))
    denominator = np.full((len(times), len(CHANNELS)), _BASE_WEIGHT)
    for phone in phones:
        if phone.start - LOOK_AHEAD < times[-1] and phone.end + LOOK_AHEAD > times[0]:
            for segment in _segments(phone):
                distance = np.maximum(0.0, np.maximum(segment.low - times, times - segment.high))
                near = np.flatnonzero(distance < REACH)
                away = distance[near, None]
                fade = (1.0 - (away / REACH) ** 2) ** 2
                weight = segment.strength * np.exp(-((away / segment.reach) ** 1.4)) * fade
                numerator[near] += weight * segment.target
                denominator[near] += weight
    blended = numerator / denominator
    return np.stack([np.convolve(blended[:, k], _KERNELS[k], "valid") for k in range(len(CHANNELS))], 1)


def mouth_units(mouth: npt.ArrayLike, effort: npt.ArrayLike, smile: npt.ArrayLike) -> Doubles:
    """Face units of the mouth, jaw and cheeks.

    The lip closure is solved on `lip_gap`, so that a closed mouth is closed whatever the jaw and the smile
    do.

    Args:
        mouth: `[T, len(CHANNELS)]` articulation channels.
        effort: `[T]` loudness, about 0 to 1.2: louder speech opens wider.
        smile: `[T]` smile of the face behind the speech, about 0 to 0.7.

    Returns:
        `[T, 52]`, each 0 to 1; zero outside the lower face.
    """
    mouth = np.asarray(mouth, np.float64)
    jaw, rounded, funnel, spread, up, low, close, tuck, tongue, rest = mouth.T
    units = np.zeros((len(mouth), len(UNIT_NAMES)))

    def add(name: str, value: Doubles) -> None:
        for column in columns(name):
            units[:, column] += value

    smile = np.asarray(smile, np.float64)
    free = np.clip(1.0 - 1.2 * rounded - 0.8 * funnel, 0.1, 1.0)
    # A wide open mouth keeps little of the smile: corners pulled apart would make it a box.
    wide = smile * free * (1.0 - np.clip(1.2 * jaw, 0.0, 0.6))
    add("jawOpen", jaw * (0.82 + 0.32 * np.asarray(effort, np.float64)))
    add("jawForward", 0.16 * np.clip(funnel - 0.3, 0.0, 1.0))
    add("mouthPucker", 0.95 * rounded)
    add("mouthFunnel", 0.80 * funnel)
    add("mouthStretch", 0.48 * spread * free)
    add("mouthSmile", wide + 0.24 * spread * free)
    add("mouthDimple", 0.25 * np.clip(wide - 0.25, 0.0, 1.0))
    add("cheekSquint", 0.6 * wide)
    # Lips that are pressed together are not drawn back at their sides.
    drawn = 1.0 - 0.75 * np.clip(close, 0.0, 1.0)
    add("mouthUpperUp", 0.85 * up * drawn + 0.28 * tuck)
    add("mouthLowerDown", 1.05 * low * drawn * (1.0 - 0.9 * np.clip(tuck, 0.0, 1.0)))
    add("mouthRollLower", 0.66 * tuck + 0.12 * close)
    add("mouthRollUpper", 0.12 * close)
    add("mouthPress", 0.22 * close)
    add("mouthShrugLower", 0.10 * close)
    # Tip behind the upper teeth up to 0.30, between the teeth above: there is one unit for both.
    add("tongueOut", np.interp(tongue, (0.0, 0.62, 1.0), (0.0, 0.30, 0.58)))
    closure = np.zeros(len(mouth))
    for amount, gain, left in ((close, 1.15, -0.035), (tuck, 1.10, 0.075), (rest, 1.06, 0.010)):
        gap = lip_gap(units)
        closing = np.clip(amount * gain, 0.0, 1.0) * np.maximum(0.0, gap - left)
        closure = np.maximum(closure, closing)
    units[:, UNIT_INDEX["mouthClose"]] = closure
    return np.clip(units, 0.0, 1.0)


def is_vowel(symbol: str) -> bool:
    """Whether the phoneme carries a syllable."""
    return any(GESTURES[name].vowel for name in gestures_of(symbol))


def _segments(phone: Phone) -> list[_Segment]:
    names = gestures_of(phone.symbol)
    if not names:
        return []
    # A diphthong moves on after a little more than half its time, but does not wait for ever.
    duration = phone.end - phone.start
    first = duration if len(names) == 1 else min(0.55 * duration, 0.15)
    cuts = np.concatenate([[0.0], np.linspace(first, duration, len(names))]) + phone.start
    segments = []
    for position, (name, begin, end) in enumerate(zip(names, cuts[:-1], cuts[1:], strict=True)):
        gesture, length = GESTURES[name], end - begin
        if not gesture.vowel and name != SILENCE:
            # Before a pause, the synthesiser's last consonant also holds its release and some silence.
            length = min(length, _LONGEST_CONSONANT)
        edge = min(0.3 * length, _EDGE)
        low, high = begin + edge, begin + length - edge
        if high - low < gesture.hold:
            middle = 0.5 * (low + high)
            low, high = middle - 0.5 * gesture.hold, middle + 0.5 * gesture.hold
        target, strength, reach = _TARGETS[name], _STRENGTHS[name], _REACHES[name]
        if gesture.vowel:
            scale = _STRESS[min(max(phone.stress, 0), 2)] if position == 0 else 0.9
            target = np.where(_OPENING, target * scale, target)
        elif name == SILENCE:
            # A gap between words is no reason to close the mouth; a pause is.
            pause = np.clip((duration - _SHORT_PAUSE) / (_LONG_PAUSE - _SHORT_PAUSE), 0.0, 1.0)
            strength = strength * (0.03 + 0.97 * pause)
        segments.append(_Segment(float(low), float(high), target, strength, reach))
    return segments


def _kernel(sigma: float) -> Doubles:
    taps = np.exp(-0.5 * (np.arange(-_TAPS, _TAPS + 1) / RATE / sigma) ** 2)
    return np.asarray(taps / taps.sum())


def _gap_weights() -> Doubles:
    weights = np.zeros(len(UNIT_NAMES))
    for name, value in _LIP_GAP.items():
        weights[columns(name)] = value
    return weights


_TARGETS = {name: np.array(gesture.target) for name, gesture in GESTURES.items()}
_STRENGTHS = {
    name: np.array([gesture.pull.get(channel, gesture.pull[""])[0] for channel in CHANNELS])
    for name, gesture in GESTURES.items()
}
_REACHES = {
    name: np.array([gesture.pull.get(channel, gesture.pull[""])[1] for channel in CHANNELS])
    for name, gesture in GESTURES.items()
}
_OPENING = np.array([name in {"jaw", "up", "low"} for name in CHANNELS])
RESTING: Doubles = _TARGETS[SILENCE]
"""Articulation channels of a silent mouth."""
_KERNELS = [_kernel(_SMOOTHING.get(name, _SMOOTHING_DEFAULT)) for name in CHANNELS]
_GAP_WEIGHTS = _gap_weights()
