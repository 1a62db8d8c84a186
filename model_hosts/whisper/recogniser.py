"""Whisper on CTranslate2, with windows as short as the speech.

Whisper was trained on 30 s; most of its time on a 4 s note goes into silence. A window of the speech and four
more seconds, at least ten, gives the same words in a third of the time; with less silence after the last word
the decoder starts to repeat itself.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ctranslate2
import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import _LANGUAGE_CODES, Tokenizer

from model_hosts.whisper.listening import find_speech
from model_hosts.whisper.windows import SAMPLE_RATE, Stretch, windows

LANGUAGES: Final = frozenset(_LANGUAGE_CODES)
_FULL_SECONDS: Final = 30
_SHORTEST_SECONDS: Final = 10
_SILENCE_SECONDS: Final = 4
_FRAMES_A_SECOND: Final = 100
_TOKENS_A_SECOND: Final = 12
_SIMPLIFIED: Final = "以下是普通话的句子，使用简体中文。"
"""What came before, so to speak: without it Mandarin comes out in traditional characters now and then."""
_NOBODY: Final = 0.6
_UNSURE: Final = -1.0
_REPETITIVE: Final = 2.4
"""Thresholds of Whisper's own decoder for silence, doubt and loops."""
_DOUBTFUL: Final = -0.3
"""Below this one word in ten or more is wrong, and a second attempt is worth half a second."""
_BEAM: Final = 5


@dataclass(frozen=True, slots=True)
class Heard:
    """What was understood so far.

    Attributes:
        text: All words so far.
        language: Such as `en`; empty when nobody spoke.
        probability: Probability of the language, 0 to 1.
        speech_seconds: Seconds of speech in the whole audio.
        final: Whether there is nothing more to come.
    """

    text: str
    language: str
    probability: float
    speech_seconds: float
    final: bool


@dataclass(frozen=True, slots=True)
class _Guess:
    """What a window may say, and the mean logarithm of its tokens' probabilities."""

    text: str
    score: float

    @property
    def loops(self) -> bool:
        encoded = self.text.encode()
        return len(encoded) > 32 and len(encoded) / len(zlib.compress(encoded)) > _REPETITIVE

    @property
    def doubtful(self) -> bool:
        return self.loops or self.score < _DOUBTFUL

    @property
    def rank(self) -> tuple[bool, float]:
        return not self.loops, self.score


class Recogniser:
    """Whisper, loaded from a directory; never looks elsewhere."""

    def __init__(self, directory: Path, threads: int) -> None:
        """Loads the model.

        Args:
            directory: Holds model.bin, config.json, tokenizer.json and vocabulary.txt.
            threads: CPU threads the host may use.

        Raises:
            FileNotFoundError: A file is missing.
        """
        for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
            if not (directory / name).is_file():
                raise FileNotFoundError(directory / name)
        # Its threads wait for one another in a loop. Where another process holds one of the cores, two
        # threads on two cores take up to ten times the CPU; alone they are hardly faster than one on a short
        # note.
        self._whisper = WhisperModel(
            str(directory),
            device="cpu",
            compute_type="int8",
            cpu_threads=max(1, threads // 2),
            local_files_only=True,
        )

    def transcribe(
        self, audio: npt.NDArray[np.float32], language: str, check: Callable[[], None]
    ) -> Iterator[Heard]:
        """Understands audio of any length, a window at a time.

        Args:
            audio: [N] samples of -1 to 1 at 16 kHz.
            language: Such as `en`; empty to find out.
            check: Called before every window; raises to stop.

        Yields:
            What was understood so far, at the end all of it.
        """
        speech = find_speech(audio)
        seconds = sum(stretch.seconds for stretch in speech)
        cut = windows(speech, len(audio))
        probability = 1.0 if language else 0.0
        texts: list[str] = []
        for index, window in enumerate(cut):
            check()
            features = self._features(audio, window, _window_seconds(window.seconds))
            encoded = self._whisper.encode(features)
            if not language:
                language, probability = self._detect(encoded)
            check()
            best = self._decode(encoded, language, window.seconds)
            if best.doubtful:
                check()
                best = max(best, self._again(audio, window, language, best), key=lambda guess: guess.rank)
            if best.text:
                texts.append(best.text)
            if index + 1 < len(cut):
                yield Heard(_join(texts, language), language, probability, seconds, final=False)
        yield Heard(_join(texts, language), language if texts else "", probability, seconds, final=True)

    def warm_up(self) -> None:
        """Runs once, so that the first call does not pay for what is allocated lazily."""
        find_speech(np.zeros(SAMPLE_RATE, np.float32))
        window = Stretch(0, SAMPLE_RATE)
        encoded = self._whisper.encode(self._features(np.zeros(SAMPLE_RATE, np.float32), window, 10))
        self._decode(encoded, "en", 1.0)

    def _features(
        self, audio: npt.NDArray[np.float32], window: Stretch, seconds: int
    ) -> npt.NDArray[np.float32]:
        padded = np.zeros(seconds * SAMPLE_RATE, np.float32)
        speech = audio[window.start : window.end][: len(padded)]
        padded[: len(speech)] = speech
        mel: npt.NDArray[np.float32] = self._whisper.feature_extractor(padded)
        return mel[:, : seconds * _FRAMES_A_SECOND]

    def _detect(self, encoded: ctranslate2.StorageView) -> tuple[str, float]:
        token, probability = self._whisper.model.detect_language(encoded)[0][0]
        return token.strip("<|>"), float(probability)

    def _decode(
        self,
        encoded: ctranslate2.StorageView,
        language: str,
        seconds: float,
        beam: int = 1,
        repeats: int = 0,
    ) -> _Guess:
        tokenizer = Tokenizer(
            self._whisper.hf_tokenizer,
            self._whisper.model.is_multilingual,
            task="transcribe",
            language=language,
        )
        before = tokenizer.encode(_SIMPLIFIED) if language == "zh" else []
        prompt = self._whisper.get_prompt(tokenizer, before, without_timestamps=True)
        result = self._whisper.model.generate(
            encoded,
            [prompt],
            beam_size=beam,
            max_length=len(prompt) + min(200, 16 + math.ceil(seconds * _TOKENS_A_SECOND)),
            no_repeat_ngram_size=repeats,
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        if result.no_speech_prob > _NOBODY and result.scores[0] < _UNSURE:
            return _Guess("", 0.0)
        return _Guess(str(tokenizer.decode(result.sequences_ids[0])).strip(), float(result.scores[0]))

    def _again(self, audio: npt.NDArray[np.float32], window: Stretch, language: str, first: _Guess) -> _Guess:
        """A second attempt at a window, as Whisper was trained: 30 s, and several hypotheses at once."""
        encoded = self._whisper.encode(self._features(audio, window, _FULL_SECONDS))
        return self._decode(encoded, language, window.seconds, beam=_BEAM, repeats=4 if first.loops else 0)


def _window_seconds(seconds: float) -> int:
    return min(_FULL_SECONDS, max(_SHORTEST_SECONDS, math.ceil(seconds) + _SILENCE_SECONDS))


def _join(texts: list[str], language: str) -> str:
    joined = ("" if language in {"zh", "ja", "yue"} else " ").join(texts)
    return re.sub(r"\s+", " ", joined).strip()
