"""Pauses where they are heard: between phonemes, and around a piece of speech.

The model's durations say when a phoneme begins to within two frames, but the last one before a pause lasts
until the pause is almost over, and a piece starts and ends with up to half a second of silence. The samples
tell more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from model_hosts.kokoro.phonemes import SAMPLES_PER_FRAME, SILENCE, Phoneme

_AUDIBLE: Final = 0.01
"""Peak of a frame in which something can be heard: 20 dB below speech."""
_FAINT: Final = 0.003
"""Peak of a frame that may be cut off."""
_BEFORE: Final = 4
_AFTER: Final = 8
"""Frames of silence that stay before the first and after the last sound: 0.1 and 0.2 s."""
_SHORTEST: Final = 2
_EARLY: Final = 4
"""Frames by which a first sound may come before its phoneme."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of speech.

    Attributes:
        audio: [N] float32 samples at 24 kHz within -1 to 1; N is a multiple of 600.
        phonemes: They tile the piece; frames of 600 samples.
    """

    audio: npt.NDArray[np.float32]
    phonemes: list[Phoneme]


def shorten(audio: npt.NDArray[np.float32], phonemes: list[Phoneme]) -> Piece:
    """Moves the ends of phonemes to where their sound ends, and cuts off silence around the piece.

    Args:
        audio: [N] samples; N is a multiple of 600.
        phonemes: They tile the audio.
    """
    peaks = np.abs(audio.reshape(-1, SAMPLES_PER_FRAME)).max(axis=1)
    return _cut(audio, settle(phonemes, peaks), peaks)


def settle(phonemes: list[Phoneme], peaks: npt.NDArray[np.float32]) -> list[Phoneme]:
    """Moves the borders between sounds and silences to where the sound begins or ends.

    Args:
        phonemes: They tile the frames.
        peaks: [F] greatest amplitude in each frame.

    Returns:
        As many phonemes, tiling the same frames.
    """
    settled = list(phonemes)
    for index in range(len(settled) - 1):
        this, after = settled[index], settled[index + 1]
        if this.symbol != SILENCE and after.symbol == SILENCE:
            heard = np.flatnonzero(peaks[this.start : this.end] > _AUDIBLE)
            length = int(heard[-1]) + 1 if len(heard) else 0
            border = min(this.end, this.start + max(length, _SHORTEST))
        elif this.symbol == SILENCE and after.symbol != SILENCE:
            border = this.end
            while border > max(this.start + 1, this.end - _EARLY) and peaks[border - 1] > _AUDIBLE:
                border -= 1
        else:
            continue
        settled[index] = replace(this, end=border)
        settled[index + 1] = replace(after, start=border)
    return settled


def _cut(audio: npt.NDArray[np.float32], phonemes: list[Phoneme], peaks: npt.NDArray[np.float32]) -> Piece:
    if len(phonemes) < 3 or phonemes[0].symbol != SILENCE or phonemes[-1].symbol != SILENCE:
        return Piece(audio, phonemes)
    sounding = np.flatnonzero(peaks > _FAINT)
    if not len(sounding):
        return Piece(audio, phonemes)
    first, last = int(sounding[0]), int(sounding[-1]) + 1
    start = max(0, min(phonemes[0].end - 1, first - _BEFORE))
    end = min(len(peaks), max(phonemes[-1].start + 1, last + _AFTER))
    moved = [replace(phoneme, start=phoneme.start - start, end=phoneme.end - start) for phoneme in phonemes]
    moved[0] = replace(moved[0], start=0)
    moved[-1] = replace(moved[-1], end=end - start)
    return Piece(audio[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME], moved)
