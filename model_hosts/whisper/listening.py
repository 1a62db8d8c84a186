"""Where somebody speaks.

The detector is Silero VAD (MIT), which comes inside faster-whisper.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from faster_whisper.vad import VadOptions, get_speech_timestamps

from model_hosts.whisper.windows import LONGEST_SECONDS, Stretch

_OPTIONS: Final = VadOptions(
    min_speech_duration_ms=150,  # Clicks and coughs are shorter.
    min_silence_duration_ms=400,
    max_speech_duration_s=LONGEST_SECONDS,
    speech_pad_ms=0,
)


def find_speech(audio: npt.NDArray[np.float32]) -> list[Stretch]:
    """Where somebody speaks.

    Args:
        audio: [N] samples of -1 to 1 at 16 kHz.

    Returns:
        Stretches in order, none longer than `LONGEST_SECONDS`.
    """
    if not len(audio):
        return []
    return [
        Stretch(int(found["start"]), int(found["end"])) for found in get_speech_timestamps(audio, _OPTIONS)
    ]
