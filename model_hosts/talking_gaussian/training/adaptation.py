"""Fits one person's lips to the person's own recording, in seconds and without torch.

A Gaussian process from what is heard (Whisper's features, the spectrum, the universal network's channels) to
the lip code, in the form of a regularised regression on a few hundred moments of the recording (subset of
regressors; Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, ch. 8). Slow changes
that the speech does not explain (posture, smile) are a process of their own in time, which is left out when
the lips are driven.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from model_hosts.talking_gaussian.driving.audio_to_lips import LipNetwork, hear
from model_hosts.talking_gaussian.driving.personal_lips import (
    CHANNEL_TAPS,
    Heard,
    Opening,
    PersonalLips,
    closed,
    kernel,
)
from model_hosts.talking_gaussian.driving.whisper_features import FEATURE_RATE, FeatureStream, WhisperEncoder
from model_hosts.talking_gaussian.training.lip_regression import Regression

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

SPEECH_SPACE = Path(__file__).with_name("speech_space.safetensors")
"""What of Whisper's features tells sounds apart in any voice (see speech_space.py)."""
LEAST_FRAMES = 60
"""Training frames below which there is nothing to fit."""

_COMPONENTS = 64
_SPEECH_SHARPNESS, _BAND_SHARPNESS = 0.45, 0.35
_SHIFTS = (0, 7, 13)
"""Features by which the recording is heard late, since Whisper's windows leave their traces."""
_SHIFTED_FRAMES = 1500
"""Longer recordings have traces enough of their own."""
_SUPPORT = 600
_CHANNEL_VARIANCE = 0.1
_SPOKEN_NOISE = 0.3
_LARGEST_GAIN = 1.6
_OPENING_SHARE = 0.9
"""Of the deviation of the opening that is restored: all of it would cost more in wrong places."""
_GAIN = 0.3
_LEAST_CORRELATION = 0.3
_TUCKED = 0.25
_TYPICAL = np.array([0.10, 0.28, 0.19, 0.15, 0.08, 0.13, 0.30, 0.22, 0.19, 0.37])
"""Deviations of the channels of synthesised speech, in the order of CHANNELS."""


@dataclass(frozen=True)
class Adaptation:
    """The result of a fit.

    Attributes:
        lips: What the bundle stores.
        opening: Correlation of the opening that is heard in blocks of the recording left out of the fit.
        opening_ratio: Deviation of that opening over the true one.
        components: The same correlations of the code's components.
        noise: Noise that the blocks left out chose.
        seconds: How long the fit took.
    """

    lips: PersonalLips
    opening: float
    opening_ratio: float
    components: tuple[float, ...]
    noise: float
    seconds: float

    def summary(self) -> dict[str, float | list[float]]:
        """For `avatar.json`."""
        return {
            "opening": round(self.opening, 3),
            "opening_ratio": round(self.opening_ratio, 3),
            "components": [round(value, 3) for value in self.components],
            "noise": self.noise,
            "seconds": round(self.seconds, 2),
        }


def fit_lips(
    samples: npt.NDArray[np.int16],
    sample_rate: int,
    lip: npt.ArrayLike,
    opening: npt.ArrayLike,
    training: npt.ArrayLike,
    encoder: WhisperEncoder,
    network: LipNetwork,
) -> Adaptation:
    """Fits the lips of a recorded person.

    Args:
        samples: Sound of the recording, mono; frame `k` shows second `k / 25`.
        sample_rate: Samples a second.
        lip: Lip codes `[T, L]`, unit deviation.
        opening: Opening of the mouth `[T]` in any unit, about linear in the code: the gap between the lips.
        training: Frames to fit to, in rising order; the others are not looked at.
        encoder: Whisper.
        network: The universal network.

    Raises:
        ValueError: There are fewer than LEAST_FRAMES training frames.
    """
    begun = monotonic()
    frames = np.asarray(training, np.int64)
    if len(frames) < LEAST_FRAMES:
        raise ValueError(f"{len(frames)} frames are too few to learn lips from ({LEAST_FRAMES} are needed)")
    truth = np.asarray(lip, np.float64)[frames]
    mouth = _opening(truth, np.asarray(opening, np.float64)[frames])
    shifts = _SHIFTS if len(frames) <= _SHIFTED_FRAMES else _SHIFTS[:1]
    heard = [_heard(samples, sample_rate, frames, shift, encoder, network) for shift in shifts]
    space = _space(heard[0])
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(_SUPPORT, len(frames))).astype(np.int64))
    draft = _draft(heard[0], chosen, space, truth, mouth)
    regression = Regression(
        [_kernel(draft, one) for one in heard],
        [_channels(one, heard[0]) for one in heard],
        _kernel(draft, heard[0])[chosen],
        truth,
        frames,
    )
    left_out = regression.left_out(mouth)
    gain = _gain(left_out.code, truth, heard[0], mouth)
    weights = regression.solve(left_out.noise)
    middle, scale = _channel_scale(heard[0])
    rest = truth.mean(0)
    channel_weight = np.sqrt(_CHANNEL_VARIANCE) * scale * weights.channels @ gain
    spoken, spoken_bias = _spoken(heard[0], truth)
    lips = PersonalLips(
        **{
            **vars(draft),
            "support_code": _floats(weights.kernel @ gain),
            "heard_weight": _floats(channel_weight),
            "heard_bias": _floats(rest - middle @ channel_weight),
            "spoken_weight": _floats(spoken),
            "spoken_bias": _floats(spoken_bias),
        }
    )
    found = closed(rest + (left_out.code - rest) @ gain, heard[0], mouth)
    true_opening, found_opening = mouth.of(truth), mouth.of(found)
    return Adaptation(
        lips,
        _correlation(found_opening, true_opening),
        float(found_opening.std() / true_opening.std()),
        tuple(_correlation(one, other) for one, other in zip(found.T, truth.T, strict=True)),
        left_out.noise,
        monotonic() - begun,
    )


def _heard(
    samples: npt.NDArray[np.int16],
    sample_rate: int,
    frames: Integers,
    shift: int,
    encoder: WhisperEncoder,
    network: LipNetwork,
) -> Heard:
    stream = FeatureStream(encoder, sample_rate)
    stream.push(np.concatenate([np.zeros(shift * sample_rate // FEATURE_RATE, np.int16), samples]))
    whole = hear(stream, network, 2 * int(frames[0]) + 1 + shift, int(frames[-1] - frames[0]) + 1)
    return Heard(**{name: values[frames - frames[0]] for name, values in vars(whole).items()})


def _opening(truth: Doubles, opening: Doubles) -> Opening:
    """The opening as a linear function of the code, and the levels of closed and usual mouths."""
    inputs = np.concatenate([truth, np.ones((len(truth), 1))], 1)
    *weight, offset = np.linalg.lstsq(inputs, opening, rcond=None)[0]
    found = inputs @ np.array([*weight, offset])
    shut, usual, widest = np.quantile(found, [0.05, 0.5, 1.0])
    levels = [offset, shut, shut + _TUCKED * (usual - shut), usual, widest]
    return Opening(np.array(weight), np.array(levels))


def _space(heard: Heard) -> tuple[Doubles, Doubles]:
    """What of Whisper's features is compared, `[512, D]` and `[D]`: this voice's components and any voice's.

    The components are half whitened: divided by the square roots of their deviations.
    """
    features = heard.features.reshape(-1, heard.features.shape[2]).astype(np.float64)
    mean = features.mean(0)
    variances, axes = np.linalg.eigh(np.cov((features - mean).T))
    variances, axes = variances[::-1][:_COMPONENTS], axes[:, ::-1][:, :_COMPONENTS]
    own = axes / np.maximum(variances, 1e-6 * variances[0]) ** 0.25
    anyones = safetensors.numpy.load_file(SPEECH_SPACE)["weight"].astype(np.float64)
    parts = []
    for part in (own, anyones):
        spread = ((features - mean) @ part).var(0).sum() * heard.features.shape[1]
        parts.append(part * np.sqrt(0.5 * _SPEECH_SHARPNESS / max(spread, 1e-12)))
    weight = np.concatenate(parts, 1)
    return weight, -mean @ weight


def _draft(
    heard: Heard, chosen: Integers, space: tuple[Doubles, Doubles], truth: Doubles, mouth: Opening
) -> PersonalLips:
    """The lips but for what they do: only the comparison with the recording."""
    bands = heard.bands.reshape(-1, heard.bands.shape[2]).astype(np.float64)
    spread = np.maximum(bands.std(0), 1e-3)
    band_weight = np.sqrt(_BAND_SHARPNESS / (bands.shape[1] * heard.bands.shape[1])) / spread
    size, inputs = truth.shape[1], heard.channels.shape[1] * heard.channels.shape[2]
    draft = PersonalLips(
        space_weight=_floats(space[0]),
        space_bias=_floats(space[1]),
        band_weight=_floats(band_weight),
        band_bias=_floats(-bands.mean(0) * band_weight),
        support_speech=np.zeros((0, 0), np.float32),
        support_bands=np.zeros((0, 0), np.float32),
        support_code=np.zeros((len(chosen), size), np.float32),
        heard_weight=np.zeros((inputs, size), np.float32),
        heard_bias=np.zeros(size, np.float32),
        spoken_weight=np.zeros((heard.channels.shape[2], size), np.float32),
        spoken_bias=np.zeros(size, np.float32),
        opening_weight=_floats(mouth.weight),
        opening_levels=_floats(mouth.levels),
    )
    speech, levels = draft.compared(heard)
    return PersonalLips(
        **{**vars(draft), "support_speech": _floats(speech[chosen]), "support_bands": _floats(levels[chosen])}
    )


def _kernel(lips: PersonalLips, heard: Heard) -> Doubles:
    speech, bands = lips.compared(heard)
    return kernel(speech, lips.support_speech, bands, lips.support_bands)


def _channel_scale(heard: Heard) -> tuple[Doubles, Doubles]:
    """Mean `[K]` and scale `[K, 1]` of the channels: unit variance of all together."""
    flat = heard.channels.reshape(len(heard.channels), -1)
    spread = np.maximum(flat.std(0), 0.02)
    return flat.mean(0), (1.0 / (spread * np.sqrt(flat.shape[1])))[:, None]


def _channels(heard: Heard, reference: Heard) -> Doubles:
    middle, scale = _channel_scale(reference)
    flat = heard.channels.reshape(len(heard.channels), -1)
    return np.asarray(np.sqrt(_CHANNEL_VARIANCE) * (flat - middle) * scale.T)


def _gain(code: Doubles, truth: Doubles, heard: Heard, mouth: Opening) -> Doubles:
    """Makes up for what regression takes of the motion, `[L, L]`: all of the opening, some of the rest."""
    rest = truth.mean(0)
    fits = np.array([_correlation(one, other) for one, other in zip(code.T, truth.T, strict=True)])
    ratio = truth.std(0) / np.maximum(code.std(0), 1e-9)
    own = np.where(fits > _LEAST_CORRELATION, np.clip(ratio, 1.0, _LARGEST_GAIN / _GAIN) ** _GAIN, 1.0)
    direction = mouth.weight / max(float(mouth.weight @ mouth.weight), 1e-9)
    wanted, gain = _OPENING_SHARE * float(mouth.of(truth).std()), np.diag(own)
    for more in np.linspace(0.0, _LARGEST_GAIN - 1.0, 25):
        gain = np.diag(own) @ (np.eye(len(rest)) + more * np.outer(mouth.weight, direction))
        if float(mouth.of(closed(rest + (code - rest) @ gain, heard, mouth)).std()) >= wanted:
            break
    return gain


def _spoken(heard: Heard, truth: Doubles) -> tuple[Doubles, Doubles]:
    """Channels to the code, `[10, L]` and `[L]`, for speech whose phonemes are known.

    The channels of phonemes move more than those that are heard: the motion is matched to the person's for
    channels of their size.
    """
    channels = heard.channels[:, CHANNEL_TAPS.index(0)]
    middle, rest = channels.mean(0), truth.mean(0)
    inputs = (channels - middle) / _TYPICAL
    ridge = inputs.T @ inputs + _SPOKEN_NOISE * len(inputs) / 10 * np.eye(inputs.shape[1])
    weight = np.linalg.solve(ridge, inputs.T @ (truth - rest)) / _TYPICAL[:, None]
    found = (channels - middle) * np.clip(_TYPICAL / np.maximum(channels.std(0), 1e-9), 0.5, 2.0) @ weight
    ratio = truth.std(0) / np.maximum(found.std(0), 1e-9)
    fits = np.array([_correlation(one, other) for one, other in zip(found.T, truth.T, strict=True)])
    weight = weight * np.where(fits > _LEAST_CORRELATION, np.clip(ratio, 0.5, 2.0), np.minimum(ratio, 1.0))
    return weight, rest - middle @ weight


def _correlation(one: Doubles, other: Doubles) -> float:
    deviations = float(one.std() * other.std())
    return float(((one - one.mean()) * (other - other.mean())).mean() / deviations) if deviations > 0 else 0.0


def _floats(values: Doubles | Floats) -> Floats:
    return np.ascontiguousarray(values, np.float32)
