"""Text to pieces of speech with the times of their phonemes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from model_hosts.kokoro.loudness import level
from model_hosts.kokoro.model import KokoroModel
from model_hosts.kokoro.pauses import Piece, shorten
from model_hosts.kokoro.phonemes import earlier, fold
from model_hosts.kokoro.phonemise import Phonemiser
from model_hosts.kokoro.splitting import split
from model_hosts.kokoro.voices import VoiceFiles, voice_of


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
            options: Made by `run_options`; setting its `terminate` stops the work.

        Raises:
            KeyError: There is no such voice.
        """
        styles = self._voices.styles(voice)
        known = voice_of(voice)
        symbols = self._phonemise(text, known.language if known else "en-US")
        for part in split(symbols):
            utterance = self._model.run(part, styles, speed, options)
            phonemes = earlier(fold(part, utterance.frames.tolist()))
            yield shorten(level(utterance.audio, voice), phonemes)
