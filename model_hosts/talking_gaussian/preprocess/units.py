"""Linear maps from the 52 ARKit face units to what the deformation networks are driven by.

Every unit drives exactly one of the two: jaw, mouth, tongue and puffed cheeks the lip code, a principal
component analysis of what the units do to the lips in the recording; eyes, brows and upper cheeks the
expression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

UNITS = 52
MOUTH_PREFIXES = ("jaw", "mouth", "tongue", "cheekPuff")

EXPRESSION: dict[str, dict[str, float]] = {
    "blinkLeft": {"eyeBlinkLeft": 1.0},
    "blinkRight": {"eyeBlinkRight": 1.0},
    "squint": {"eyeSquintLeft": 0.5, "eyeSquintRight": 0.5},
    "wide": {"eyeWideLeft": 0.5, "eyeWideRight": 0.5},
    # Positive: both eyes look to the person's left, or up.
    "gazeYaw": {
        "eyeLookOutLeft": 0.5,
        "eyeLookInRight": 0.5,
        "eyeLookInLeft": -0.5,
        "eyeLookOutRight": -0.5,
    },
    "gazePitch": {
        "eyeLookUpLeft": 0.5,
        "eyeLookUpRight": 0.5,
        "eyeLookDownLeft": -0.5,
        "eyeLookDownRight": -0.5,
    },
    "browDownLeft": {"browDownLeft": 1.0},
    "browDownRight": {"browDownRight": 1.0},
    "browInnerUp": {"browInnerUp": 1.0},
    "browOuterUpLeft": {"browOuterUpLeft": 1.0},
    "browOuterUpRight": {"browOuterUpRight": 1.0},
    "cheekSquint": {"cheekSquintLeft": 0.5, "cheekSquintRight": 0.5},
    "noseSneer": {"noseSneerLeft": 0.5, "noseSneerRight": 0.5},
}
"""Expression channels as weighted sums of units."""

_BLINKS = 0.2
"""A lid that never goes further down than this from where it usually is, never blinks."""
_NEVER_MOVED = 1e-3
_LEAST_SPREAD = 0.08
_LIP_SPREAD_FLOOR = 0.12
_RIDGE = 2e-4
"""Squared unit: units that hardly move say little about the lips."""


@dataclass(frozen=True)
class UnitMaps:
    """The maps a bundle stores under `units.*`.

    Attributes:
        names: The units in the order of the recording, 52.
        mean: Mean of the units over the training frames, float32 [52].
        to_lip: float32 [52, L]; lip code = (units - mean) @ to_lip.
        to_expression: float32 [52, E]; expression = (units - mean) @ to_expression.
        expression_names: The E channels.
    """

    names: tuple[str, ...]
    mean: FloatArray
    to_lip: FloatArray
    to_expression: FloatArray
    expression_names: tuple[str, ...]

    def lip(self, units: FloatArray) -> FloatArray:
        """Lip code [T, L] of units [T, 52]."""
        return ((units - self.mean) @ self.to_lip).astype(np.float32)

    def expression(self, units: FloatArray) -> FloatArray:
        """Expression [T, E] of units [T, 52]."""
        return ((units - self.mean) @ self.to_expression).astype(np.float32)


def without_gaze_in_blinks(
    units: FloatArray, names: tuple[str, ...], training: npt.NDArray[np.int64]
) -> FloatArray:
    """Face units of a tracked person, the eyes taken for looking ahead as far as a lid covers them.

    A tracker sees eyes that look down in every blink, and its lids seldom reach 1. Whoever drives the avatar
    moves lids alone: shut eyes must follow from them, not from a gaze that nobody meant.

    Args:
        units: Float32 [T, 52].
        names: Their ARKit names.
        training: Frames that say where lids and eyes usually are, and how far a lid goes.
    """
    out = units.copy()
    for side in ("Left", "Right"):
        lid = units[:, names.index(f"eyeBlink{side}")]
        usual = float(np.median(lid[training]))
        furthest = float(lid[training].max()) - usual
        if furthest < _BLINKS:
            continue
        open_ = 1 - np.clip((lid - usual) / furthest, 0, 1)[:, None]
        gaze = [names.index(f"eyeLook{way}{side}") for way in ("Down", "Up", "In", "Out")]
        ahead = np.median(units[training][:, gaze], axis=0)
        out[:, gaze] = ahead + open_ * (units[:, gaze] - ahead)
    return out


def fit_unit_maps(units: FloatArray, names: tuple[str, ...], points: FloatArray, dims: int) -> UnitMaps:
    """Fits the maps to a recording.

    Args:
        units: Face units of the training frames, float32 [T, 52].
        names: Their ARKit names.
        points: Un-posed positions of mouth and chin landmarks in millimetres, float32 [T, P, k]; P may be 0.
        dims: Components of the lip code wanted; fewer come back when the recording has fewer.

    Returns:
        The maps. A unit that never moves in the recording drives nothing: what it would do was not learnt.
    """
    count = len(units)
    mean = units.mean(0)
    centred = (units - mean).astype(np.float64)
    moved = units.std(0) > _NEVER_MOVED
    mouth = np.array([name.startswith(MOUTH_PREFIXES) for name in names]) & moved
    # What a unit does to the lips: its regressed effect on the landmarks, and its own value, so that units
    # which move no landmark (tongue, rolled lips) count as a few millimetres as well.
    flat = points.reshape(count, -1).astype(np.float64)
    ridge = centred[:, mouth].T @ centred[:, mouth] + 1e-3 * count * np.eye(int(mouth.sum()))
    effect = np.linalg.solve(ridge, centred[:, mouth].T @ (flat - flat.mean(0)))
    gain = np.zeros((UNITS, effect.shape[1] + int(mouth.sum())))
    gain[mouth, : effect.shape[1]] = effect
    gain[np.nonzero(mouth)[0], effect.shape[1] + np.arange(int(mouth.sum()))] = 4.0
    moving = centred @ gain
    _, singular, basis = np.linalg.svd(moving, full_matrices=False)
    kept = min(dims, int((singular > 1e-6 * max(singular[0], 1e-9)).sum()))
    spread = np.maximum(singular[:kept] / np.sqrt(count), _LIP_SPREAD_FLOOR * singular[0] / np.sqrt(count))
    to_lip = gain @ basis[:kept].T / spread
    return UnitMaps(
        names=names,
        mean=mean.astype(np.float32),
        to_lip=to_lip.astype(np.float32),
        to_expression=_expression_map(centred, names, moved),
        expression_names=tuple(EXPRESSION),
    )


def map_units(units: FloatArray, names: tuple[str, ...], lip: FloatArray) -> UnitMaps:
    """The maps for a recording whose lip code was measured: what the mouth's units say about it.

    Args:
        units: Face units of the training frames, float32 [T, 52].
        names: Their ARKit names.
        lip: Their lip codes, float32 [T, L], with mean 0.
    """
    mean = units.mean(0)
    centred = (units - mean).astype(np.float64)
    moved = units.std(0) > _NEVER_MOVED
    mouth = np.array([name.startswith(MOUTH_PREFIXES) for name in names]) & moved
    given = centred[:, mouth]
    normal = given.T @ given + _RIDGE * len(units) * np.eye(int(mouth.sum()))
    to_lip = np.zeros((UNITS, lip.shape[1]))
    to_lip[mouth] = np.linalg.solve(normal, given.T @ lip)
    return UnitMaps(
        names=names,
        mean=mean.astype(np.float32),
        to_lip=to_lip.astype(np.float32),
        to_expression=_expression_map(centred, names, moved),
        expression_names=tuple(EXPRESSION),
    )


def _expression_map(
    centred: npt.NDArray[np.float64], names: tuple[str, ...], moved: npt.NDArray[np.bool_]
) -> FloatArray:
    columns = []
    for weights in EXPRESSION.values():
        column = np.zeros(UNITS)
        for name, weight in weights.items():
            column[names.index(name)] = weight * moved[names.index(name)]
        columns.append(column / max(float((centred @ column).std()), _LEAST_SPREAD))
    return np.stack(columns, 1).astype(np.float32)
