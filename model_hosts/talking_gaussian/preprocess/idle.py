"""The idle track: a quiet stretch of the recording that begins again where it ends, without a jump."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from model_hosts.talking_gaussian.driving.units import UNIT_INDEX
from model_hosts.talking_gaussian.preprocess.source import FPS

FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_FADE = 15
_SHORTEST, _LONGEST = 3 * FPS, 8 * FPS
_STEP = 5
_SPEECH, _MOTION, _LENGTH = 2.0, 12.0, 0.02
_SHUT, _AROUND = 0.25, 3
"""A lid so much further down than usual blinks, and so many frames before and after belong to it."""


@dataclass(frozen=True)
class Idle:
    """M frames that can be shown over and over.

    Attributes:
        poses: Head poses, float32 [M, 4, 4].
        units: Face units, float32 [M, 52].
        track: Torso track, float32 [M, 4].
    """

    poses: FloatArray
    units: FloatArray
    track: FloatArray


def find_idle(poses: FloatArray, units: FloatArray, track: FloatArray, silent: Mask, mouth: Mask) -> Idle:
    """Chooses a quiet stretch whose ends fit together, and fades its end into its start.

    Args:
        poses: Head poses, float32 [T, 4, 4].
        units: Face units, float32 [T, 52].
        track: Torso track, float32 [T, 4].
        silent: Frames without speech, bool [T].
        mouth: Units of the mouth, bool [52]; they rest as in the most silent frames.
    """
    start, end = _stretch(poses, units, track, silent)
    turn = Rotation.from_matrix(poses[:, :3, :3].astype(np.float64))
    middle = turn[start:end].mean()
    flat = np.concatenate([(middle.inv() * turn).as_rotvec(), poses[:, :3, 3], units, track], 1)
    looped = flat[start:end].copy()
    fade = min(_FADE, start, (end - start) // 2)
    if fade:
        # Towards the end the frames become those that led to the first one.
        share = (np.arange(fade) + 1.0)[:, None] / (fade + 1)
        share = share * share * (3 - 2 * share)
        looped[-fade:] = (1 - share) * looped[-fade:] + share * flat[start - fade : start]
    out = np.tile(np.eye(4, dtype=np.float32), (end - start, 1, 1))
    out[:, :3, :3] = (middle * Rotation.from_rotvec(looped[:, :3])).as_matrix()
    out[:, :3, 3] = looped[:, 3:6]
    still = looped[:, 6:58].astype(np.float32)
    still[:, mouth] = np.median(units[silent if silent.any() else slice(None)][:, mouth], axis=0)
    return Idle(out, still, looped[:, 58:].astype(np.float32))


def without_blinks(units: FloatArray) -> FloatArray:
    """Units [M, 52] of a loop as if the person had not blinked: blinks are never twice at the same place.

    What moves along with the lids is bridged as well, and the tracker's tremble is taken out.
    """
    lids = units[:, [UNIT_INDEX["eyeBlinkLeft"], UNIT_INDEX["eyeBlinkRight"]]].max(1)
    shut = lids > np.median(lids) + _SHUT
    near = np.stack([np.roll(shut, shift) for shift in range(-_AROUND, _AROUND + 1)]).any(0)
    if near.all():
        near = np.zeros_like(shut)
    frames = np.arange(len(units))
    open_ = frames[~near]
    calm = np.stack([np.interp(frames, open_, column[open_], period=len(units)) for column in units.T], 1)
    smooth: FloatArray = ((np.roll(calm, 1, 0) + 2 * calm + np.roll(calm, -1, 0)) / 4).astype(np.float32)
    return smooth


def _stretch(poses: FloatArray, units: FloatArray, track: FloatArray, silent: Mask) -> tuple[int, int]:
    count = len(poses)
    if count < _SHORTEST + _FADE + 2:
        return min(_FADE, count // 4), count
    turn = Rotation.from_matrix(poses[:, :3, :3].astype(np.float64))
    away = np.degrees((turn.mean().inv() * turn).as_rotvec())
    # Degrees, millimetres, pixels and tenths of a unit count alike.
    place = np.concatenate([away, poses[:, :3, 3] * 300, track[:, :2] * 0.5, units * 10 / 7], 1)
    speed = np.linalg.norm(np.diff(place[:, :6], axis=0, append=place[-1:, :6]), axis=1)
    talk, moved = np.cumsum(np.r_[0, ~silent]), np.cumsum(np.r_[0, speed])
    best = (np.inf, _FADE, count)
    for length in range(_SHORTEST, min(_LONGEST, count - _FADE - 1) + 1, _STEP):
        starts = np.arange(_FADE, count - length, _STEP)
        ends = starts + length
        gap = np.linalg.norm(place[starts] - place[ends], axis=1)
        gap += 3 * np.linalg.norm(_velocity(place, starts) - _velocity(place, ends), axis=1)
        cost = gap + _SPEECH * (talk[ends] - talk[starts]) / length
        cost += _MOTION * (moved[ends] - moved[starts]) / length - _LENGTH * length
        pick = int(cost.argmin())
        best = min(best, (float(cost[pick]), int(starts[pick]), int(ends[pick])))
    return best[1], best[2]


def _velocity(place: Doubles, index: npt.NDArray[np.int64]) -> Doubles:
    slope: Doubles = place[index] - place[index - 1]
    return slope
