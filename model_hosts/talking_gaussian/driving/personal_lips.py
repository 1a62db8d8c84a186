"""How one recorded person's lips follow speech: from what is heard, or from phonemes, to the lip code.

What is heard goes through a Gaussian process that was fitted to the person's own recording
(training/adaptation.py). Its kernel is a sum: a linear one on the articulation channels, which every voice
shares, one on Whisper's features, most of all on what tells sounds apart in any voice, and one on the
spectrum. The last two fade with the distance from the recording: what is like nothing in it follows the
channels alone.

Closed lips are not left to regression: the opening of the mouth is linear in the code, so a closure is the
least change of the code that shuts it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.bundle import Bundle, BundleInvalid
from model_hosts.talking_gaussian.driving.animator import FaceTrack
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS
from model_hosts.talking_gaussian.driving.whisper_features import BANDS, FEATURES

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

SPEECH_TAPS = (-4, -2, 0, 2, 4)
"""Features around the middle of a frame from which its lips are heard, 50 a second."""
CHANNEL_TAPS = (-4, -2, 0, 2)
CLOSE_TAP = 2
"""The network hears a closure when the lips have met already: it is looked for this much later."""
BAND_WEIGHT = 0.5
"""Variance of the spectrum's kernel against that of Whisper's features."""

_CLOSE, _TUCK, _REST = (CHANNELS.index(name) for name in ("close", "tuck", "rest"))
_CLOSE_LOW, _CLOSE_HIGH = 0.60, 0.95
_CLOSE_GAIN, _TUCK_GAIN, _REST_GAIN = 1.15, 1.10, 1.06
"""As in articulation: channels that were smoothed do not quite reach 1."""
_LARGEST_CODE = 4.0
_AGREE, _DISAGREE = 0.7, 1.4
"""Openings, in usual ones, below which a closure that is heard is believed and above which it is not."""


@dataclass(frozen=True)
class Heard:
    """What is heard in `T` frames.

    Attributes:
        features: Whisper's, `[T, len(SPEECH_TAPS), 512]`.
        bands: The spectrum, `[T, len(SPEECH_TAPS), BANDS]`.
        channels: Articulation channels, `[T, len(CHANNEL_TAPS), 10]`.
        closing: How likely the lips are pressed together, `[T]`.
    """

    features: Floats
    bands: Floats
    channels: Doubles
    closing: Doubles


@dataclass(frozen=True)
class Opening:
    """The opening of the mouth, in any unit, as a linear function of the lip code.

    Attributes:
        weight: `[L]`; opening = code @ weight + levels[0].
        levels: The offset, then the openings of closed lips, of a lower lip behind the teeth, the usual and
            the widest.
    """

    weight: Doubles
    levels: Doubles

    def of(self, code: Doubles) -> Doubles:
        """Opening `[T]` of lip codes `[T, L]`."""
        return np.asarray(code @ self.weight + self.levels[0])

    def limited(self, code: Doubles, level: float, amount: Doubles) -> Doubles:
        """The code with `amount` `[T]`, 0 to 1, of what its opening exceeds `level` by taken away."""
        return self._moved(code, -amount * np.maximum(0.0, self.of(code) - level))

    def bounded(self, code: Doubles) -> Doubles:
        """The code within what the person was seen to do: lips neither through each other nor torn apart."""
        inside = np.clip(code, -_LARGEST_CODE, _LARGEST_CODE)
        opening = self.of(inside)
        return self._moved(inside, np.clip(opening, self.levels[1], self.levels[4]) - opening)

    def _moved(self, code: Doubles, by: Doubles) -> Doubles:
        # The components have unit deviation: this is the likeliest change that moves the opening by so much.
        return np.asarray(code + by[:, None] * self.weight / max(float(self.weight @ self.weight), 1e-9))


@dataclass(frozen=True)
class PersonalLips:
    """The person's lips; what a bundle stores under `audio.*`.

    Attributes:
        space_weight: `[512, D]`, Whisper's features to those compared with the recording.
        space_bias: `[D]`.
        band_weight: `[BANDS]`, scale of the spectrum.
        band_bias: `[BANDS]`.
        support_speech: Moments of the recording, `[M, len(SPEECH_TAPS) * D]`.
        support_bands: Their spectra, `[M, len(SPEECH_TAPS) * BANDS]`.
        support_code: What each adds to the code of a moment like it, `[M, L]`.
        heard_weight: `[len(CHANNEL_TAPS) * 10, L]`, channels that were heard to the code.
        heard_bias: `[L]`.
        spoken_weight: `[10, L]`, channels of phonemes to the code.
        spoken_bias: `[L]`.
        opening_weight: `[L]`, see Opening.
        opening_levels: `[5]`, see Opening.
    """

    space_weight: Floats
    space_bias: Floats
    band_weight: Floats
    band_bias: Floats
    support_speech: Floats
    support_bands: Floats
    support_code: Floats
    heard_weight: Floats
    heard_bias: Floats
    spoken_weight: Floats
    spoken_bias: Floats
    opening_weight: Floats
    opening_levels: Floats

    @classmethod
    def of(cls, bundle: object) -> PersonalLips | None:
        """Those of a bundle, or None when it has no `audio.*` or is of another kind.

        Raises:
            BundleInvalid: A tensor is missing, unknown or of a wrong shape.
        """
        if not isinstance(bundle, Bundle):
            return None
        tensors = bundle.group("audio.")
        if not tensors:
            return None
        names = {field.name.replace("_", ".", 1): field.name for field in fields(cls)}
        unknown = sorted(names.keys() ^ tensors.keys())
        if unknown:
            state = "unknown" if unknown[0] in tensors else "missing"
            raise BundleInvalid(f"model.safetensors: audio.{unknown[0]} is {state}")
        lips = cls(**{field: np.asarray(tensors[name], np.float32) for name, field in names.items()})
        lips.check(bundle.info.lip_code)
        return lips

    def check(self, lip_code: int) -> None:
        """Checks that the tensors fit together and give a lip code of this length.

        Raises:
            BundleInvalid: They do not.
        """
        size = self.space_weight.shape[-1]
        count, taps = len(self.support_speech), len(SPEECH_TAPS)
        shapes = {
            "space_weight": (FEATURES, size),
            "space_bias": (size,),
            "band_weight": (BANDS,),
            "band_bias": (BANDS,),
            "support_speech": (count, taps * size),
            "support_bands": (count, taps * BANDS),
            "support_code": (count, lip_code),
            "heard_weight": (len(CHANNEL_TAPS) * len(CHANNELS), lip_code),
            "heard_bias": (lip_code,),
            "spoken_weight": (len(CHANNELS), lip_code),
            "spoken_bias": (lip_code,),
            "opening_weight": (lip_code,),
            "opening_levels": (5,),
        }
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                stored = name.replace("_", ".", 1)
                raise BundleInvalid(
                    f"model.safetensors: audio.{stored} is {list(found)}, but must be {list(shape)}"
                )

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What a bundle stores, by name: matrices as float16, vectors as float32."""
        stored = {}
        for field in fields(self):
            value = getattr(self, field.name)
            stored[f"audio.{field.name.replace('_', '.', 1)}"] = (
                value.astype(np.float16) if value.ndim == 2 else value
            )
        return stored

    @property
    def opening(self) -> Opening:
        """Opening of the mouth."""
        return Opening(self.opening_weight.astype(np.float64), self.opening_levels.astype(np.float64))

    def driven(self, track: FaceTrack, at_rest: npt.ArrayLike) -> Doubles:
        """Lip code `[T, L]` of an animated face: from its audio, its phonemes, and at rest in silence.

        Args:
            track: The face.
            at_rest: Lip code of the closed mouth at rest, `[L]`.
        """
        code = self.spoken(track.channels, at_rest)
        if track.heard.any():
            code += track.heard[:, None] * (track.lips - code)
        rest = np.asarray(at_rest, np.float64)
        return np.asarray(rest + track.sounding[:, None] * (code - rest))

    def heard(self, heard: Heard) -> Doubles:
        """Lip code `[T, L]` of what is heard."""
        speech, bands = self.compared(heard)
        near = kernel(speech, self.support_speech, bands, self.support_bands)
        channels = heard.channels.reshape(len(near), -1)
        code = near @ self.support_code + channels @ self.heard_weight + self.heard_bias
        return closed(code, heard, self.opening)

    def compared(self, heard: Heard) -> tuple[Floats, Floats]:
        """What is compared with the support: `[T, len(SPEECH_TAPS) * D]` and `[..., * BANDS]`."""
        count = len(heard.features)
        speech = heard.features @ self.space_weight + self.space_bias
        bands = heard.bands * self.band_weight + self.band_bias
        return speech.reshape(count, -1), bands.reshape(count, -1)

    def spoken(self, channels: npt.ArrayLike, at_rest: npt.ArrayLike) -> Doubles:
        """Lip code `[T, L]` of phonemes.

        Args:
            channels: Their articulation channels, `[T, 10]`.
            at_rest: Lip code of the closed mouth at rest, `[L]`.
        """
        mouth = np.asarray(channels, np.float64)
        opening = self.opening
        tuck, close, rest = (
            np.clip(gain * mouth[:, channel], 0.0, 1.0)
            for gain, channel in ((_TUCK_GAIN, _TUCK), (_CLOSE_GAIN, _CLOSE), (_REST_GAIN, _REST))
        )
        code = opening.bounded(mouth @ self.spoken_weight + self.spoken_bias)
        code = opening.limited(code, opening.levels[2], tuck)
        code = opening.limited(code, opening.levels[1], close)
        return code + rest[:, None] * (np.asarray(at_rest, np.float64) - code)


def kernel(speech: Floats, support: Floats, bands: Floats, band_support: Floats) -> Doubles:
    """How alike moments are: `[T, M]`, at most 1 + BAND_WEIGHT."""
    own = np.exp(-_distances(speech, support))
    return np.asarray(own + BAND_WEIGHT * np.exp(-_distances(bands, band_support)))


def closed(code: Doubles, heard: Heard, opening: Opening) -> Doubles:
    """The code with its lips pressed together where that is heard and the rest of the code agrees."""
    amount = np.clip((heard.closing - _CLOSE_LOW) / (_CLOSE_HIGH - _CLOSE_LOW), 0.0, 1.0)
    usual = max(float(opening.levels[3]), 1e-9)
    inside = opening.bounded(code)
    agree = np.clip((_DISAGREE - opening.of(inside) / usual) / (_DISAGREE - _AGREE), 0.0, 1.0)
    return opening.limited(inside, opening.levels[1], amount * agree)


def _distances(one: Floats, other: Floats) -> Doubles:
    """Squared distances `[T, M]`."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2.0 * one @ other.T
    return np.asarray(np.maximum(squares, 0.0), np.float64)
