"""From speech to the conditions of an avatar's frames: what the renderer uses of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.animator import FaceAnimator, FaceTrack, Listener, Utterance
from model_hosts.talking_gaussian.driving.articulation import RESTING, Phone, mouth_units
from model_hosts.talking_gaussian.driving.idle import IdleMotion
from model_hosts.talking_gaussian.driving.personal_lips import PersonalLips
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS
from model_hosts.talking_gaussian.driving.state import TORSO_TRACK_SIZE, FrameState
from model_hosts.talking_gaussian.driving.units import UNIT_INDEX

if TYPE_CHECKING:
    # Types only: driving needs numpy and nothing else.
    from model_hosts.talking_gaussian.kinds import AnyBundle

Doubles = npt.NDArray[np.float64]

_ANIMATED_SPREAD = np.radians([1.45, 2.9, 1.4])
"""Typical deviation of the animator's head about the camera's x, y and z axis, radians."""
_POSE_BOUND = 2.6
"""Furthest the head may go from its mean pose, in deviations over the clip the avatar was trained on."""
_BREATH_DEVIATIONS = 1.2
_LARGEST_BREATH = 1.5
_IDLE_SWAY = 0.5
"""What the head drifts beside its recorded motion, so that nobody sees where that begins again."""
_LIDS = (("blinkLeft", "eyeBlinkLeft"), ("blinkRight", "eyeBlinkRight"))
_CLOSED = [CHANNELS.index("rest"), CHANNELS.index("close")]


class Driver:
    """Drives one avatar through one stream of speech, in constant memory.

    With phonemes the lips follow them, otherwise the audio (this needs a listener). At most 0.6 s of speech
    are held back inside a sentence, 0.4 s after its end, 0.8 s when the lips follow the audio. Frame `k` is
    shown from second `k / 25` on.
    """

    def __init__(
        self, bundle: AnyBundle, seed: int, sample_rate: int, listener: Listener | None = None
    ) -> None:
        """Starts a stream.

        Args:
            bundle: The avatar.
            seed: Seed of blinks, gaze and head motion; the same speech with the same seed gives the same
                frames.
            sample_rate: Samples a second of the speech.
            listener: Hears the mouth in speech that comes without phonemes; must know the person where the
                bundle does.

        Raises:
            BundleInvalid: The lips or the idle motion of the bundle cannot be used.
        """
        self._personal = PersonalLips.of(bundle)
        self._at_rest = bundle.tensor("lip.closed").astype(np.float64)
        self._idle = IdleMotion.of(bundle)
        self._animator = FaceAnimator(
            seed, sample_rate, listener, sway=1.0 if self._idle is None else _IDLE_SWAY
        )
        self._unit_mean = bundle.tensor("units.mean").astype(np.float64)
        self._to_lip = bundle.tensor("units.to_lip").astype(np.float64)
        self._to_expression = bundle.tensor("units.to_expression").astype(np.float64)
        drivers = bundle.info.drivers
        seen = drivers.get("expression_range")
        self._seen = None if seen is None else np.asarray(seen, np.float64)
        names = bundle.info.expression_names
        self._lids = [(names.index(name), UNIT_INDEX[unit]) for name, unit in _LIDS if name in names]
        spread = bundle.tensor("pose.std").astype(np.float64)[:3]
        self._pose_scale = np.minimum(1.0, spread / _ANIMATED_SPREAD)
        self._pose_bound = np.maximum(_POSE_BOUND * spread, 1e-6)
        self._coupling = np.asarray(drivers.get("pose_coupling", np.zeros((3, 3))), np.float64)
        self._track_mean = np.asarray(drivers.get("track_mean", np.zeros(TORSO_TRACK_SIZE)), np.float64)
        rise = _BREATH_DEVIATIONS * float(bundle.tensor("track.std")[1])
        self._breath_rise = min(rise, _LARGEST_BREATH)
        self._closing = self._bias_of_closed_lips(self._at_rest)

    def push(
        self,
        samples: npt.NDArray[np.int16],
        phones: Sequence[Phone] | None,
        end_of_sentence: bool,
        question: bool = False,
    ) -> FrameState:
        """Hears a piece of speech; returns the frames that are now certain.

        Args:
            samples: int16, mono.
            phones: Phonemes of this piece, their times counted from its start; None when unknown.
            end_of_sentence: A sentence ends with this piece.
            question: That sentence is a question.

        Raises:
            ValueError: `finish` was called before, or there are neither phonemes nor a listener.
        """
        return self._conditions(self._animator.push(Utterance(samples, phones, end_of_sentence, question)))

    def finish(self) -> FrameState:
        """The rest: the mouth closes. In all there are `ceil(samples / sample_rate * 25)` frames."""
        return self._conditions(self._animator.finish())

    def _conditions(self, track: FaceTrack) -> FrameState:
        units, count = track.units.astype(np.float64), len(track)
        if self._personal is None:
            closed = track.channels[:, _CLOSED].max(1, initial=0.0).astype(np.float64)
            lip = self._lip_code(units) + closed[:, None] * self._closing
        else:
            lip = self._personal.driven(track, self._at_rest)
        turn = rotation_vectors(track.pose) * self._pose_scale
        shift, rest = np.zeros((count, 3)), self._unit_mean
        torso = np.tile(self._track_mean, (count, 1))
        torso[:, 1] -= self._breath_rise * track.breath
        if self._idle is not None:
            # The shoulders breathe as they were recorded; the head nods and turns on top of its own motion.
            pose, rest, torso = self._idle.at(self._animator.frames - count, track.activity)
            turn += pose[:, :3]
            shift = pose[:, 3:] - pose[:, :3] @ self._coupling.T
        turn = self._pose_bound * np.tanh(turn / self._pose_bound)
        pose = np.concatenate([turn, turn @ self._coupling.T + shift], 1)
        return FrameState(
            lip.astype(np.float32),
            self._expression(units, rest).astype(np.float32),
            pose.astype(np.float32),
            torso.astype(np.float32),
        )

    def _expression(self, units: Doubles, rest: Doubles) -> Doubles:
        """Upper face: of a recorded person about that person's own rest, and never beyond what was seen."""
        if self._seen is None and self._idle is None:
            return np.asarray((units - self._unit_mean) @ self._to_expression)
        found = (units + rest - self._unit_mean) @ self._to_expression
        if self._seen is None:
            return np.asarray(found)
        for channel, unit in self._lids:
            # Shut is as far as the person's lid was seen to go: trackers seldom see it shut.
            up = found[:, channel] - units[:, unit] * self._to_expression[unit, channel]
            found[:, channel] = up + units[:, unit] * (self._seen[1][channel] - up)
        return np.clip(found, self._seen[0], self._seen[1])

    def _lip_code(self, units: Doubles) -> Doubles:
        return np.asarray((units - self._unit_mean) @ self._to_lip)

    def _bias_of_closed_lips(self, closed: Doubles) -> Doubles:
        """What the map of units lacks to reach the avatar's own closed lips, but for how much it smiles."""
        rest, smiling = self._lip_code(
            mouth_units(np.tile(RESTING, (2, 1)), np.zeros(2), np.array([0.2, 0.6]))
        )
        smile = smiling - rest
        bias = closed - rest
        return np.asarray(bias - smile * (bias @ smile) / max(float(smile @ smile), 1e-9))


def rotation_vectors(degrees: npt.ArrayLike) -> Doubles:
    """Head turns as rotation vectors about the camera axes (x right, y down, z away from the viewer).

    Args:
        degrees: `[T, 3]` yaw, pitch, roll as in FaceTrack.pose: the head is rolled first, then pitched,
            then turned.

    Returns:
        `[T, 3]` radians.
    """
    yaw, pitch, roll = 0.5 * np.radians(np.asarray(degrees, np.float64)).T
    # Product of the quaternions of the three turns, in axes x right, y up, z to the viewer.
    a, b, c = np.cos(yaw), np.cos(pitch), np.cos(roll)
    d, e, f = np.sin(yaw), np.sin(pitch), np.sin(roll)
    w = a * b * c + d * e * f
    axis = np.stack([a * e * c + d * b * f, d * b * c - a * e * f, a * b * f - d * e * c], -1)
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(length, w[:, None])
    turns = axis * np.where(length > 1e-12, angle / np.maximum(length, 1e-12), 2.0)
    return np.asarray(turns * (1.0, -1.0, -1.0))
