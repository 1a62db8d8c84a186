"""Ties the original's inputs to what drives our avatars: face units.

The original's mouth is moved by codes that its audio networks make of speech features, which only who has
their extractor can compute for new speech. Here the codes of the recording are known for every frame, and so
are face units (tracked, or heard by our own listener). A ridge regression between the two gives the codes of
any units. This is the one thing in an imported avatar that is fitted, and not the original's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.units import UNIT_NAMES
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.preprocess.units import MOUTH_PREFIXES
from model_hosts.talking_gaussian.upstream.model import ACTION_UNITS

FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SOURCES: dict[str, tuple[str, ...]] = {
    "AU01": ("browInnerUp",),
    "AU02": ("browOuterUpLeft", "browOuterUpRight"),
    "AU04": ("browDownLeft", "browDownRight"),
    "AU05": ("eyeWideLeft", "eyeWideRight"),
    "AU06": ("cheekSquintLeft", "cheekSquintRight"),
    "AU07": ("eyeSquintLeft", "eyeSquintRight"),
    "AU45": ("eyeBlinkLeft", "eyeBlinkRight"),
}
"""The face units whose mean stands for an action unit."""
FULL_INTENSITY = 5.0
"""Intensity of an action unit at its strongest; face units go to 1."""
_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_FOLDS = 5
_CLOSED_SHARE = 0.2
_MOST_GAIN = 1.8
"""A regression moves less than what it was fitted to; the motion is enlarged again, at most by this. Held-out
lips are then as near to the truth as those of the original's own audio networks, and as lively."""


def arrange_units(units: npt.NDArray[np.floating], names: list[str]) -> FloatArray:
    """Units [T, K] in the order of `UNIT_NAMES`, [T, 52]; those without a column are zero."""
    out = np.zeros((len(units), len(UNIT_NAMES)), np.float32)
    for column, name in enumerate(UNIT_NAMES):
        if name in names:
            out[:, column] = units[:, names.index(name)]
    return out


def read_units(path: Path, count: int) -> FloatArray:
    """Face units [count, 52] of an .npz with `units` and `unit_names`, such as a recording's truth.npz.

    Raises:
        DatasetInvalid: The file is damaged, or is of another number of frames.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            units, names = archive["units"], [str(name) for name in archive["unit_names"]]
    except (OSError, KeyError, ValueError) as error:
        raise DatasetInvalid(f"{path.name} cannot be used ({error})") from error
    if units.shape != (count, len(names)) or not np.isfinite(units).all():
        raise DatasetInvalid(f"units are {units.shape}, but must be ({count}, {len(names)})")
    return arrange_units(units, names)


def fit_driving(
    codes: FloatArray, action_units: FloatArray, opening: FloatArray, units: FloatArray
) -> dict[str, FloatArray]:
    """The tensors of a bundle that turn face units into the original's inputs.

    Args:
        codes: Audio codes of face and mouth in the training frames, [T, 64].
        action_units: [T, 6].
        opening: How far the lips are parted, [T].
        units: Face units of the same frames in our order, [T, 52].
    """
    closed = opening <= np.quantile(opening, _CLOSED_SHARE)
    mean = codes.mean(0)
    return {
        "units.mean": units.mean(0).astype(np.float32),
        "units.to_lip": _fit_codes(units.astype(np.float64), codes.astype(np.float64)),
        "units.to_expression": _expression(units),
        "lip.mean": mean.astype(np.float32),
        "lip.closed": (np.median(codes[closed], 0) - mean).astype(np.float32),
        "expression.mean": action_units.mean(0).astype(np.float32),
    }


def _fit_codes(units: Doubles, codes: Doubles) -> FloatArray:
    """Ridge regression [52, 64] of codes on the units of mouth and jaw, both about their means."""
    mouth = np.array([name.startswith(MOUTH_PREFIXES) for name in UNIT_NAMES])
    spread = units.std(0)
    # Units of unequal reach count alike; one that never moves drives nothing.
    scale = np.where(mouth & (spread > 1e-3), 1 / np.maximum(spread, 1e-3), 0)
    inputs = (units - units.mean(0)) * scale
    outputs = codes - codes.mean(0)

    def solve(rows: npt.NDArray[np.bool_], penalty: float) -> Doubles:
        own = inputs[rows]
        return np.linalg.solve(own.T @ own + penalty * len(own) * np.eye(own.shape[1]), own.T @ outputs[rows])

    fold = np.arange(len(units)) * _FOLDS // len(units)
    errors = [
        sum(
            float(np.square(outputs[fold == k] - inputs[fold == k] @ solve(fold != k, penalty)).sum())
            for k in range(_FOLDS)
        )
        for penalty in _PENALTIES
    ]
    weights = solve(np.ones(len(units), bool), _PENALTIES[int(np.argmin(errors))])
    fitted = float(np.square(inputs @ weights).sum())
    if fitted > 0:
        weights *= min(np.sqrt(float(np.square(outputs).sum()) / fitted), _MOST_GAIN)
    return (scale[:, None] * weights).astype(np.float32)


def _expression(units: FloatArray) -> FloatArray:
    """The map [52, 6] of units to action units."""
    out = np.zeros((units.shape[1], len(ACTION_UNITS)), np.float32)
    for column, name in enumerate(ACTION_UNITS):
        for source in SOURCES[name]:
            out[UNIT_NAMES.index(source), column] = FULL_INTENSITY / len(SOURCES[name])
    return out
