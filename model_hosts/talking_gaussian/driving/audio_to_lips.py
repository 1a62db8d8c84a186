"""The mouth from the audio alone: a small temporal convolution network on Whisper's features.

It writes the same articulation channels that phonemes give, so that one network serves every avatar and
every voice. The lips of an avatar that knows its person's own follow the same features.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from model_hosts.talking_gaussian.driving.personal_lips import (
    CHANNEL_TAPS,
    CLOSE_TAP,
    SPEECH_TAPS,
    Heard,
    PersonalLips,
)
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS
from model_hosts.talking_gaussian.driving.whisper_features import (
    FEATURES,
    FeatureStream,
    WhisperEncoder,
)

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

NETWORK = Path(__file__).with_name("audio_to_units.safetensors")
REACH = 7
"""Features on either side of a moment that the network sees."""
DILATIONS = (1, 1, 2, 2)
KERNELS = (5, 3, 3, 3)

_CLOSURES = [CHANNELS.index(name) for name in ("close", "tuck")]
_SWITCHES = [CHANNELS.index(name) for name in ("close", "tuck", "rest")]
_SWITCH_LOW, _SWITCH_HIGH = 0.25, 0.62
_SLOW = 2
_SLOWING = np.array([1.0, 3.0, 4.0, 3.0, 1.0]) / 12.0


@dataclass(frozen=True)
class LipNetwork:
    """Weights of the network.

    Attributes:
        inner: Weight `[H, 512]` and bias of the input layer.
        convolutions: Weight `[H, H, K]` and bias of each layer; all but the first add to their input.
        outer: Weight `[len(CHANNELS), H]` and bias of the output layer.
        metadata: How it was made and how good it is.
    """

    inner: tuple[Floats, Floats]
    convolutions: tuple[tuple[Floats, Floats], ...]
    outer: tuple[Floats, Floats]
    metadata: dict[str, Any]

    @classmethod
    def load(cls, path: Path = NETWORK) -> LipNetwork:
        """Reads a network.

        Raises:
            ValueError: It is not a network of this shape.
        """
        with safetensors.safe_open(path, "numpy") as file:
            names = file.keys()
            tensors = {name: np.asarray(file.get_tensor(name), np.float32) for name in names}
            metadata = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
        try:
            layers = [
                (tensors[f"{name}.weight"], tensors[f"{name}.bias"])
                for name in ("in", *(f"conv.{index}" for index in range(len(KERNELS))), "out")
            ]
        except KeyError as error:
            raise ValueError(f"{path.name} lacks {error}") from error
        sizes = [weight.shape[2] for weight, _ in layers[1:-1]]
        shape = (layers[0][0].shape[1], layers[-1][0].shape[0], sizes)
        if shape != (FEATURES, len(CHANNELS), list(KERNELS)):
            raise ValueError(f"{path.name} is of another shape")
        return cls(layers[0], tuple(layers[1:-1]), layers[-1], metadata)

    def run(self, features: npt.ArrayLike) -> Doubles:
        """Articulation channels at 50 a second.

        Args:
            features: `[N + 2 * REACH, 512]`.

        Returns:
            `[N, len(CHANNELS)]`, 0 to 1. `close`, `tuck` and `rest` are sharpened: the network says how
            likely they are, the mouth does them or not.
        """
        return sharpened(self.likely(features))

    def likely(self, features: npt.ArrayLike) -> Doubles:
        """The same as `run`, but `close`, `tuck` and `rest` are how likely they are."""
        hidden = np.maximum(np.asarray(features, np.float32) @ self.inner[0].T + self.inner[1], 0.0)
        for index, (weight, bias) in enumerate(self.convolutions):
            size, dilation = weight.shape[2], DILATIONS[index]
            count = len(hidden) - (size - 1) * dilation
            total = np.zeros((count, len(bias)), np.float32) + bias
            for tap in range(size):
                total += hidden[tap * dilation : tap * dilation + count] @ weight[:, :, tap].T
            total = np.maximum(total, 0.0)
            trim = (size - 1) * dilation // 2
            hidden = total if index == 0 else total + hidden[trim : trim + count]
        scores = (hidden @ self.outer[0].T + self.outer[1]).astype(np.float64)
        return np.asarray(1.0 / (1.0 + np.exp(-scores)))


def sharpened(likely: Doubles) -> Doubles:
    """Channels of what is likely: the mouth closes, tucks and rests or does not."""
    found = likely.copy()
    step = np.clip((found[:, _SWITCHES] - _SWITCH_LOW) / (_SWITCH_HIGH - _SWITCH_LOW), 0.0, 1.0)
    found[:, _SWITCHES] = step * step * (3.0 - 2.0 * step)
    return found


def hear(stream: FeatureStream, network: LipNetwork, first: int, count: int) -> Heard:
    """What is heard in `count` frames, the first of which has its middle at the feature `first`."""
    before, after = min(*SPEECH_TAPS, *CHANNEL_TAPS), max(*SPEECH_TAPS, *CHANNEL_TAPS, CLOSE_TAP)
    last = first + 2 * (count - 1) + 1
    features = stream.features(first + before - REACH, last + max(CLOSE_TAP, *CHANNEL_TAPS) + REACH)
    bands = stream.spectrum(first + before, last + after)
    likely = network.likely(features)
    mouth = sharpened(likely)
    middles = 2 * np.arange(count) - before

    def around(values: npt.NDArray[Any], taps: tuple[int, ...], extra: int = 0) -> npt.NDArray[Any]:
        return np.stack([values[middles + tap + extra] for tap in taps], 1)

    return Heard(
        around(features, SPEECH_TAPS, REACH),
        around(bands, SPEECH_TAPS),
        around(mouth, CHANNEL_TAPS),
        likely[middles + CLOSE_TAP, CHANNELS.index("close")],
    )


class AudioListener:
    """Hears the mouth in a stream of audio. Implements animator.Listener; holds the state of one stream."""

    def __init__(
        self,
        encoder: WhisperEncoder,
        network: LipNetwork,
        sample_rate: int,
        personal: PersonalLips | None = None,
    ) -> None:
        self._stream = FeatureStream(encoder, sample_rate)
        self._network = network
        self._personal = personal

    @property
    def lip_size(self) -> int:
        """Length of the person's lip code, 0 when the person is not known."""
        return 0 if self._personal is None else len(self._personal.heard_bias)

    def push(self, samples: npt.NDArray[np.int16]) -> None:
        """Hears more of the stream."""
        self._stream.push(samples)

    def channels(self, first: int, count: int) -> Doubles:
        """Articulation channels `[count, 10]` of the video frames from `first` on."""
        before, after = 2 * first + 1 - _SLOW, 2 * (first + count - 1) + 2 + _SLOW
        found = self._network.run(self._stream.features(before - REACH, after + REACH))
        slow = np.stack([np.convolve(channel, _SLOWING, "valid") for channel in found.T], 1)
        # Lips may meet within a frame, but the mouth does not spring open.
        slow[:, _CLOSURES] = found[_SLOW : len(found) - _SLOW, _CLOSURES]
        return slow[::2]

    def lips(self, first: int, count: int) -> Doubles:
        """Lip code `[count, lip_size]` of the video frames from `first` on."""
        if self._personal is None:
            return np.zeros((count, 0))
        return self._personal.heard(hear(self._stream, self._network, 2 * first + 1, count))

    def forget(self, frame: int) -> None:
        """Nobody will ask for frames before this one again."""
        self._stream.forget(2 * frame + 1 + min(-_SLOW, *SPEECH_TAPS, *CHANNEL_TAPS) - REACH)
