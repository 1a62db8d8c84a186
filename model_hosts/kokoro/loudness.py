"""How loud each voice is, so that all of them can be made equally loud.

A voice is turned up or down by the same amount whatever it says: a whisper stays softer than a shout.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

TARGET_DB: Final = -20.0
"""Level of speech after `level`, in dB of full scale."""
_PEAK: Final = 0.95
_GATE_DB: Final = -25.0
_FRAME: Final = 600

_MEASURED_DB: Final = {  # `speech_level` of one sentence of 4 s, speed 1.
    "af_alloy": -20.5,
    "af_aoede": -16.6,
    "af_bella": -19.9,
    "af_heart": -21.4,
    "af_jessica": -21.6,
    "af_kore": -17.3,
    "af_nicole": -20.2,
    "af_nova": -25.6,
    "af_river": -20.6,
    "af_sarah": -19.7,
    "af_sky": -22.2,
    "am_adam": -17.2,
    "am_echo": -21.0,
    "am_eric": -20.5,
    "am_fenrir": -18.5,
    "am_liam": -20.5,
    "am_michael": -22.7,
    "am_onyx": -20.4,
    "am_puck": -17.7,
    "am_santa": -21.6,
    "bf_alice": -19.8,
    "bf_emma": -19.2,
    "bf_isabella": -16.3,
    "bf_lily": -20.5,
    "bm_daniel": -20.1,
    "bm_fable": -22.0,
    "bm_george": -19.7,
    "bm_lewis": -22.4,
    "zf_xiaobei": -19.4,
    "zf_xiaoni": -17.5,
    "zf_xiaoxiao": -15.7,
    "zf_xiaoyi": -17.9,
    "zm_yunjian": -19.8,
    "zm_yunxi": -20.9,
    "zm_yunxia": -19.5,
    "zm_yunyang": -23.3,
}


def speech_level(audio: npt.NDArray[np.float32]) -> float:
    """Level of the parts that are not silent, in dB of full scale.

    Args:
        audio: [N] samples of -1 to 1 at 24 kHz; at least one frame of 25 ms that is not zero.
    """
    frames = audio[: len(audio) // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float64)
    power = (frames**2).mean(axis=1)
    loud = power[power > power.max() * 10 ** (_GATE_DB / 10)]
    return float(10 * np.log10(loud.mean()))


def level(audio: npt.NDArray[np.float32], voice: str) -> npt.NDArray[np.float32]:
    """Brings a voice to the common level; where a peak would clip, the piece stays a little softer.

    Args:
        audio: [N] samples as the model made them.
        voice: Id of the voice; one that was not measured stays as it is.

    Returns:
        [N] samples, none beyond 0.95.
    """
    gain = 10 ** ((TARGET_DB - _MEASURED_DB.get(voice, TARGET_DB)) / 20)
    peak = float(np.abs(audio).max(initial=0.0))
    return audio * np.float32(min(gain, _PEAK / peak if peak else gain))
