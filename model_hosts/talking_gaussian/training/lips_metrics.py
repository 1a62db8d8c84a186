"""How well a network finds the mouth in the audio, against the articulation of the known phonemes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.articulation import Phone, lip_gap, mouth_units
from model_hosts.talking_gaussian.driving.audio_to_lips import REACH, LipNetwork
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS, gestures_of
from model_hosts.talking_gaussian.training.lips_data import Example

Doubles = npt.NDArray[np.float64]

FPS = 25
CLOSED = 0.035
"""Lip gap, in openings of a full jaw (34 mm), below which the mouth looks closed."""
_REST = CHANNELS.index("rest")


@dataclass(frozen=True)
class LipMetrics:
    """Figures over all frames of some examples.

    Attributes:
        jaw: Correlation of the jaw channel.
        opening: Correlation of the lip gap.
        opening_ratio: Deviation of the lip gap found over that of the truth.
        rounding: Correlation of the rounding channel.
        spreading: Correlation of the spreading channel.
        bilabial_recall: Share of p, b and m during which the mouth closes.
        bilabial_precision: Share of the closures inside speech that belong to a p, b or m (or to f or v).
        silence: Share of silent frames with closed lips.
        lag_frames: Shift of the found lip gap that fits best; positive means late.
    """

    jaw: float
    opening: float
    opening_ratio: float
    rounding: float
    spreading: float
    bilabial_recall: float
    bilabial_precision: float
    silence: float
    lag_frames: int


def gap_of(mouth: npt.ArrayLike) -> Doubles:
    """Lip gap of articulation channels at usual loudness and smile."""
    count = len(np.asarray(mouth))
    return lip_gap(mouth_units(mouth, np.full(count, 0.7), np.full(count, 0.2)))


def measure(network: LipNetwork, examples: Sequence[Example]) -> LipMetrics:
    """Runs the network on examples, at 25 frames a second."""
    found, truth, silent = [], [], []
    closed, bilabials, closures, right = 0, 0, 0, 0
    for one in examples:
        padded = np.pad(one.features.astype(np.float32), ((REACH, REACH), (0, 0)), mode="edge")
        mouth = network.run(padded)[1::2]
        target = one.targets.astype(np.float64)[1::2]
        gap = gap_of(mouth)
        lips = bilabial_spans(one.phones, len(mouth))
        allowed = _mask(lips + _spans(one.phones, "f", len(mouth)), len(mouth))
        shut = gap < CLOSED
        closed += sum(bool(shut[first:last].any()) for first, last in lips)
        bilabials += len(lips)
        speaking = target[:, _REST] < 0.3
        for first, last in _runs(shut & speaking):
            closures += 1
            right += bool(allowed[first:last].any())
        found.append(mouth)
        truth.append(target)
        silent.append(shut[target[:, _REST] > 0.9])
    mouths, targets = np.concatenate(found), np.concatenate(truth)
    gap, true_gap = gap_of(mouths), gap_of(targets)
    quiet = np.concatenate(silent)
    return LipMetrics(
        jaw=_channel(mouths, targets, "jaw"),
        opening=_correlation(gap, true_gap),
        opening_ratio=round(float(gap.std() / true_gap.std()), 3),
        rounding=_channel(mouths, targets, "round"),
        spreading=_channel(mouths, targets, "spread"),
        bilabial_recall=round(closed / max(1, bilabials), 3),
        bilabial_precision=round(right / max(1, closures), 3),
        silence=round(float(quiet.mean()) if len(quiet) else 1.0, 3),
        lag_frames=best_lag(gap, true_gap),
    )


def best_lag(found: Doubles, truth: Doubles, largest: int = 6) -> int:
    """Shift of `found`, in samples, that correlates best with `truth`; positive means that it is late."""
    fits = {
        lag: _correlation(
            found[max(0, lag) : len(found) + min(0, lag)], truth[max(0, -lag) : len(truth) - max(0, lag)]
        )
        for lag in range(-largest, largest + 1)
    }
    return max(fits, key=lambda lag: fits[lag])


def _channel(found: Doubles, truth: Doubles, name: str) -> float:
    index = CHANNELS.index(name)
    return _correlation(found[:, index], truth[:, index])


def _correlation(one: Doubles, other: Doubles) -> float:
    return round(float(np.corrcoef(one, other)[0, 1]), 3)


def bilabial_spans(phones: Sequence[Phone], count: int) -> list[tuple[int, int]]:
    """First and last frame (exclusive) of each p, b and m within `count` frames, a little wider."""
    return _spans(phones, "p", count)


def _spans(phones: Sequence[Phone], gesture: str, count: int) -> list[tuple[int, int]]:
    spans = []
    for phone in phones:
        if gesture in gestures_of(phone.symbol):
            first = max(0, int(np.floor((phone.start - 0.05) * FPS)))
            last = min(count, int(np.ceil((min(phone.end, phone.start + 0.18) + 0.02) * FPS)))
            if last > first:
                spans.append((first, last))
    return spans


def _mask(spans: Sequence[tuple[int, int]], count: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(count, np.bool_)
    for first, last in spans:
        mask[first:last] = True
    return mask


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True)]
