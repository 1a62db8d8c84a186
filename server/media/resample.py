"""Raw samples at any usual rate to the rate of the ears, piece by piece."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from server.errors import FieldInvalid

MIN_RATE: Final = 8000
MAX_RATE: Final = 48000
OUTPUT_RATE: Final = 16000


class PcmResampler:
    """Converts a stream of mono 16-bit samples to 16 kHz.

    All pieces together have ceil(n * 16000 / rate) samples for n samples in, whatever pieces they came in.
    """

    def __init__(self, sample_rate: int) -> None:
        """Begins a stream.

        Args:
            sample_rate: Samples a second of the input, 8,000 to 48,000.

        Raises:
            FieldInvalid: If the rate is out of range.
        """
        if not MIN_RATE <= sample_rate <= MAX_RATE:
            raise FieldInvalid(
                f"A sample rate of {sample_rate} cannot be heard.",
                fix=f"Set sample_rate to a value from {MIN_RATE} to {MAX_RATE}.",
            )
        self._rate = sample_rate
        self._resampler = AudioResampler(format="s16", layout="mono", rate=OUTPUT_RATE)
        self._rest = b""
        self._taken = 0
        self._given = 0

    def push(self, data: bytes) -> npt.NDArray[np.int16]:
        """Takes little-endian samples, split anywhere; returns those that are ready, int16 [n]."""
        data = self._rest + data
        whole = len(data) // 2 * 2
        self._rest = data[whole:]
        if not whole:
            return np.zeros(0, np.int16)
        return self._through(np.frombuffer(data[:whole], "<i2"))

    def finish(self) -> npt.NDArray[np.int16]:
        """The last samples, int16 [n].

        Raises:
            FieldInvalid: If the stream ended in the middle of a sample.
        """
        if self._rest:
            raise FieldInvalid(
                "The audio ends in the middle of a sample.", fix="Send 16-bit samples, two bytes each."
            )
        total = -(-self._taken * OUTPUT_RATE // self._rate)
        # The filter keeps its last samples until sound follows; silence does.
        tail = self._through(np.zeros(self._rate // 10, np.int16))
        return tail[: max(0, total - (self._given - len(tail)))]

    def _through(self, samples: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        frame = AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = self._rate
        self._taken += len(samples)
        ready = [mixed.to_ndarray()[0] for mixed in self._resampler.resample(frame)]
        out = np.concatenate(ready) if ready else np.zeros(0, np.int16)
        self._given += len(out)
        return out
