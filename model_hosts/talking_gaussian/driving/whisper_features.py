"""Features of speech from the encoder of Whisper, in short windows of a stream.

The log-mel front end is ours (numpy); the encoder runs in CTranslate2. Every 0.4 s of audio is encoded with
1 s of past and 0.2 s of future, which keeps almost all that a whole recording would give (measured on
visemes: 0.70 against 0.71). Beside them the plain spectrum in a few bands, for lips that know the voice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 16000
FEATURE_RATE = 50
FEATURES = 512
HOP = 20
"""Features encoded at a time."""
PAST = 50
AHEAD = 10
"""Features of future audio that the encoder sees."""
BANDS = 16
"""Bands of the plain spectrum."""

_FFT = 400
_STEP = 160
_MELS = 80
_WINDOW = PAST + HOP + AHEAD
_MARGIN = (_FFT - _STEP) // 2
_QUIET = 0.002
_FLOOR = 1e-7


class WhisperEncoder:
    """The encoder of Whisper base."""

    def __init__(self, directory: Path, threads: int) -> None:
        """Loads the model.

        Args:
            directory: The asset `whisper-base`, in CTranslate2's format.
            threads: Threads to compute with.

        Raises:
            RuntimeError: The directory does not hold a Whisper model.
        """
        import ctranslate2  # noqa: PLC0415 - only audio without phonemes needs it

        self._library: Any = ctranslate2
        self._model: Any = ctranslate2.models.Whisper(
            str(directory), device="cpu", compute_type="int8", intra_threads=threads
        )
        self._filters = mel_filters()
        self._silence = self.encode(np.zeros(_WINDOW * 2 * _STEP + 2 * _MARGIN))

    def encode(self, samples: npt.ArrayLike) -> Floats:
        """Features of a window: `[len(samples) // 320, 512]`, 50 a second.

        Args:
            samples: 16 kHz, full scale 1, with 120 more samples on either side of the window.
        """
        mel = log_mel(np.asarray(samples, np.float64), self._filters)
        view = self._library.StorageView.from_array(np.ascontiguousarray(mel[None], np.float32))
        encoded: Floats = np.array(self._model.encode(view, to_cpu=True), np.float32).squeeze(0)
        return encoded

    @property
    def silence(self) -> Floats:
        """Features of a window of digital silence."""
        return self._silence


@dataclass(frozen=True)
class _Resampler:
    """Any sample rate to 16 kHz by a windowed sinc; the result does not depend on any cut."""

    up: int
    down: int
    half: int
    weights: Doubles

    @classmethod
    def of(cls, sample_rate: int) -> _Resampler:
        divisor = gcd(sample_rate, SAMPLE_RATE)
        up, down = SAMPLE_RATE // divisor, sample_rate // divisor
        cutoff = min(1.0, up / down) * 0.94
        half = int(np.ceil(14.0 / cutoff))
        taps = np.arange(-half, half + 1)
        shift = (np.arange(up) * down % up) / up
        distance = taps[None, :] - shift[:, None]
        window = np.cos(0.5 * np.pi * np.clip(distance / (half + 1), -1.0, 1.0)) ** 2
        weights = cutoff * np.sinc(cutoff * distance) * window
        return cls(up, down, half, weights / weights.sum(1, keepdims=True))

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Input samples needed for the output samples `first` to `last`."""
        return first * self.down // self.up - self.half, (last - 1) * self.down // self.up + self.half + 1

    def apply(self, samples: Doubles, first: int, last: int) -> Doubles:
        """Output samples `first` to `last` from the input samples of `span`."""
        outputs = np.arange(first, last)
        places = outputs * self.down // self.up - first * self.down // self.up
        taken = samples[places[:, None] + np.arange(2 * self.half + 1)]
        return np.asarray(np.einsum("ij,ij->i", taken, self.weights[outputs % self.up]))


class FeatureStream:
    """Features of a stream of audio at 50 a second, encoded when asked for, in constant memory."""

    def __init__(self, encoder: WhisperEncoder, sample_rate: int) -> None:
        self._encoder = encoder
        self._resampler = _Resampler.of(sample_rate)
        self._first = 0
        self._samples = np.zeros(0, np.int16)
        self._hops: dict[int, Floats] = {}
        self._spectra: dict[int, Floats] = {}

    def push(self, samples: npt.NDArray[np.int16]) -> None:
        """Hears more of the stream."""
        self._samples = np.concatenate([self._samples, samples])

    def features(self, first: int, last: int) -> Floats:
        """Features `[last - first, 512]`; feature `i` is of the audio around second `(i + 0.5) / 50`.

        Before and after the stream there is silence. What was pushed must reach HOP + AHEAD features beyond
        `last`, unless the stream has ended.
        """
        hops = range(first // HOP, (last - 1) // HOP + 1)
        joined = np.concatenate([self._hop(hop) for hop in hops])
        start = hops[0] * HOP
        return joined[first - start : last - start]

    def spectrum(self, first: int, last: int) -> Floats:
        """Logarithms of the power in mel bands, `[last - first, BANDS]`, at the places of the features."""
        hops = range(first // HOP, (last - 1) // HOP + 1)
        joined = np.concatenate([self._spectrum(hop) for hop in hops])
        start = hops[0] * HOP
        return joined[first - start : last - start]

    def forget(self, first: int) -> None:
        """Features before `first` will not be asked for again."""
        hop = first // HOP
        for kept in (self._hops, self._spectra):
            for old in [index for index in kept if index < hop]:
                del kept[old]
        keep = self._resampler.span((hop * HOP - PAST) * 2 * _STEP - _MARGIN, 0)[0]
        if keep > self._first:
            drop = min(keep - self._first, len(self._samples))
            self._samples, self._first = self._samples[drop:], self._first + drop

    def _hop(self, hop: int) -> Floats:
        if hop not in self._hops:
            begin = (hop * HOP - PAST) * 2 * _STEP - _MARGIN
            end = begin + _WINDOW * 2 * _STEP + 2 * _MARGIN
            low, high = self._resampler.span(begin, end)
            samples = self._window(low, high)
            if np.abs(samples).max() < _QUIET:
                encoded = self._encoder.silence
            else:
                encoded = self._encoder.encode(self._resampler.apply(samples, begin, end))
            self._hops[hop] = encoded[PAST : PAST + HOP]
        return self._hops[hop]

    def _spectrum(self, hop: int) -> Floats:
        if hop not in self._spectra:
            begin = hop * HOP * 2 * _STEP - _MARGIN
            end = begin + HOP * 2 * _STEP + 2 * _MARGIN
            samples = self._resampler.apply(self._window(*self._resampler.span(begin, end)), begin, end)
            level = np.log10(np.maximum(_power(samples) @ mel_filters().T, _FLOOR))
            self._spectra[hop] = level.reshape(HOP, 2, BANDS, -1).mean((1, 3)).astype(np.float32)
        return self._spectra[hop]

    def _window(self, low: int, high: int) -> Doubles:
        found = np.zeros(high - low)
        begin, end = max(low, self._first), min(high, self._first + len(self._samples))
        if end > begin:
            found[begin - low : end - low] = self._samples[begin - self._first : end - self._first] / 32768.0
        return found


@cache
def mel_filters() -> Doubles:
    """The 80 mel filters of Whisper, `[80, 201]`: Slaney's scale and area normalisation, 0 to 8 kHz."""
    edges = _hertz(np.linspace(0.0, _mel(SAMPLE_RATE / 2.0), _MELS + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2.0, _FFT // 2 + 1)
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    area = 2.0 / (edges[2:] - edges[:-2])
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)) * area[:, None])


def log_mel(samples: Doubles, filters: Doubles) -> Floats:
    """Whisper's log-mel spectrogram, `[80, frames]`, 100 frames a second.

    Args:
        samples: 16 kHz, with 120 more samples on either side of the frames.
        filters: Of `mel_filters`.
    """
    mel = np.log10(np.maximum(_power(samples) @ filters.T, 1e-10)).T
    return np.asarray((np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0, np.float32)


def _power(samples: Doubles) -> Doubles:
    """Power spectra `[frames, 201]`, 100 a second, of samples with 120 more on either side."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FFT)[::_STEP]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(_FFT) / _FFT)
    return np.asarray(np.abs(np.fft.rfft(frames * window)) ** 2)


def _mel(hertz: float) -> float:
    return hertz / (200.0 / 3.0) if hertz < 1000.0 else 15.0 + np.log(hertz / 1000.0) / (np.log(6.4) / 27.0)


def _hertz(mel: Doubles) -> Doubles:
    linear = mel * (200.0 / 3.0)
    return np.asarray(np.where(mel < 15.0, linear, 1000.0 * np.exp((mel - 15.0) * (np.log(6.4) / 27.0))))
