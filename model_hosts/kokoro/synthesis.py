"""Text to pieces of speech with the times of their phonemes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model_hosts.kokoro.model import MAX_SYMBOLS, KokoroModel
from model_hosts.kokoro.phonemes import Phoneme, fold
from model_hosts.kokoro.phonemise import Phonemiser
from model_hosts.kokoro.voices import VoiceFiles, voice_of

_COMFORTABLE: Final = 200
"""Symbols that the model speaks best at once; longer inputs are hurried."""
_SENTENCE_END: Final = re.compile(r"(?<=[.!?…])[”\")]*\s+")
_BREAKS: Final = (re.compile(r"(?<=[;:—])\s+"), re.compile(r"(?<=,)\s+"), re.compile(r"\s+"))


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of speech.

    Attributes:
        audio: [N] float32 samples at 24 kHz within -1 to 1.
        phonemes: They tile the piece; frames of 600 samples.
    """

    audio: npt.NDArray[np.float32]
    phonemes: list[Phoneme]


class Synthesiser:
    """Speaks text with any of the voices."""

    def __init__(self, model: KokoroModel, voices: VoiceFiles, phonemiser: Phonemiser) -> None:
        self._model = model
        self._voices = voices
        self._phonemise = phonemiser

    def speak(self, text: str, voice: str, speed: float = 1.0, options: Any | None = None) -> Iterator[Piece]:
        """Speaks a text, a sentence or a few short ones at a time.

        Args:
            text: Text as people write it.
            voice: Id of a voice.
            speed: 1 is the voice's natural speed.
            options: onnxruntime's RunOptions; setting its `terminate` stops the work.

        Raises:
            KeyError: There is no such voice.
        """
        styles = self._voices.styles(voice)
        known = voice_of(voice)
        symbols = self._phonemise(text, known.language if known else "en-US")
        for part in split(symbols):
            utterance = self._model.run(part, styles, speed, options)
            yield Piece(within_range(utterance.audio), fold(part, utterance.frames.tolist()))


def within_range(audio: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turns a piece down when its peak would clip; quieter ones stay as the model made them."""
    peak = float(np.abs(audio).max(initial=0.0))
    return audio if peak <= 0.98 else audio * np.float32(0.98 / peak)


def split(symbols: str) -> list[str]:
    """Divides symbols into parts that the model can speak: whole sentences where possible.

    The first part is only the first sentence, so that it can be heard soon. Nothing but spaces is lost.
    """
    parts: list[str] = []
    for sentence in (part for part in _SENTENCE_END.split(symbols.strip()) if part):
        if len(parts) > 1 and len(parts[-1]) + 1 + len(sentence) <= _COMFORTABLE:
            parts[-1] = f"{parts[-1]} {sentence}"
        else:
            parts += _shorten(sentence, _BREAKS)
    return parts


def _shorten(sentence: str, breaks: tuple[re.Pattern[str], ...]) -> list[str]:
    if len(sentence) <= _COMFORTABLE or (not breaks and len(sentence) <= MAX_SYMBOLS):
        return [sentence]
    if not breaks:
        return [sentence[start : start + MAX_SYMBOLS] for start in range(0, len(sentence), MAX_SYMBOLS)]
    parts: list[str] = []
    for clause in breaks[0].split(sentence):
        if parts and len(parts[-1]) + 1 + len(clause) <= _COMFORTABLE:
            parts[-1] = f"{parts[-1]} {clause}"
        else:
            parts.append(clause)
    return [part for clause in parts for part in _shorten(clause, breaks[1:])]
