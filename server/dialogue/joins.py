"""Puts pieces of speech together: a quiet start and end, pauses, no pops where pieces meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from viseme.host.v1 import host_pb2

Samples = npt.NDArray[np.int16]

_FADE_SECONDS: Final = 0.005
_BLOCK_SECONDS: Final = 0.01
_SILENT_RMS: Final = 60.0
"""Blocks below this level (-55 dBFS) are silence."""
_SILENCE: Final = "_"


class SpeechJoiner:
    """Turns what the synthesiser says into one continuous track.

    The last piece of a sentence is held back until the sentence has ended, because only then is it known that
    it is the last, how quiet it ends and what belongs after it.

    Args:
        sample_rate: Samples a second of all pieces.
        lead_seconds: Silence before the first sentence, besides what the synthesiser begins with.
        pause_seconds: Silence between two sentences, what the synthesiser leaves included.
        settle_seconds: Silence after the last sentence, likewise.
    """

    def __init__(
        self, sample_rate: int, *, lead_seconds: float, pause_seconds: float, settle_seconds: float
    ) -> None:
        self.sample_rate = sample_rate
        self._lead = round(lead_seconds * sample_rate)
        self._pause = round(pause_seconds * sample_rate)
        self._settle = round(settle_seconds * sample_rate)
        self._held: tuple[Samples, list[host_pb2.Phoneme]] | None = None
        self._sentence_begun = False
        self._quiet = 0
        self._has_phonemes = False

    def add(self, pcm: bytes, phonemes: Sequence[host_pb2.Phoneme]) -> host_pb2.RenderRequest.Speech | None:
        """Takes the next piece of a sentence; returns the piece before it, when there is one.

        Args:
            pcm: Mono little-endian signed 16-bit samples.
            phonemes: Those of this piece, times from its start; empty when unknown.
        """
        samples = np.frombuffer(pcm, "<i2").astype(np.int16)
        if not len(samples):
            return None
        if not self._sentence_begun:
            _fade(samples, self.sample_rate, out=False)
            self._sentence_begun = True
        self._has_phonemes = self._has_phonemes or bool(phonemes)
        before, self._held = self._held, self._after_lead(samples, list(phonemes))
        return _speech(*before) if before else None

    def end_sentence(self, *, complete: bool, question: bool) -> host_pb2.RenderRequest.Speech | None:
        """Ends a sentence, or a clause of one; returns its last piece, None when nothing was said.

        Args:
            complete: Whether the sentence is complete; a clause gets no pause.
            question: Whether it is a question.
        """
        held, self._held, self._sentence_begun = self._held, None, False
        if held is None:
            return None
        samples, phonemes = held
        _fade(samples, self.sample_rate, out=True)
        self._quiet = _quiet_samples_at_end(samples, self.sample_rate)
        if complete and self._quiet < self._pause:
            samples, phonemes = self._lengthen(samples, phonemes, self._pause - self._quiet)
            self._quiet = self._pause
        return _speech(samples, phonemes, end_of_sentence=complete, question=question)

    def settle(self) -> host_pb2.RenderRequest.Speech | None:
        """The silence after the last sentence, in which the mouth closes; None when there is enough."""
        if self._quiet >= self._settle:
            return None
        return _speech(
            *self._lengthen(np.zeros(0, np.int16), [], self._settle - self._quiet), end_of_sentence=True
        )

    def _after_lead(
        self, samples: Samples, phonemes: list[host_pb2.Phoneme]
    ) -> tuple[Samples, list[host_pb2.Phoneme]]:
        """Puts the silence of the start before the first piece, and leaves the others as they are."""
        count, self._lead = self._lead, 0
        if not count:
            return samples, phonemes
        lead = count / self.sample_rate
        later = [
            host_pb2.Phoneme(
                symbol=phoneme.symbol,
                start_seconds=phoneme.start_seconds + lead,
                end_seconds=phoneme.end_seconds + lead,
                stress=phoneme.stress,
            )
            for phoneme in phonemes
        ]
        silence = host_pb2.Phoneme(symbol=_SILENCE, end_seconds=lead)
        return np.concatenate([np.zeros(count, np.int16), samples]), [silence, *later] if later else later

    def _lengthen(
        self, samples: Samples, phonemes: list[host_pb2.Phoneme], count: int
    ) -> tuple[Samples, list[host_pb2.Phoneme]]:
        """Adds `count` samples of silence, to the phonemes too where they are known."""
        start, end = (n / self.sample_rate for n in (len(samples), len(samples) + count))
        silence = host_pb2.Phoneme(symbol=_SILENCE, start_seconds=start, end_seconds=end)
        return (
            np.concatenate([samples, np.zeros(count, np.int16)]),
            [*phonemes, silence] if self._has_phonemes else phonemes,
        )


def _fade(samples: Samples, sample_rate: int, *, out: bool) -> None:
    """Fades the first or last few milliseconds in place, so that the edge is silent."""
    count = min(len(samples), round(_FADE_SECONDS * sample_rate))
    ramp = np.sin(np.linspace(0, np.pi / 2, count)) ** 2
    if out:
        samples[len(samples) - count :] = samples[len(samples) - count :] * ramp[::-1]
    else:
        samples[:count] = samples[:count] * ramp


def _quiet_samples_at_end(samples: Samples, sample_rate: int) -> int:
    """How many samples of silence a piece ends with, in whole blocks of 10 ms."""
    block = round(_BLOCK_SECONDS * sample_rate)
    count = len(samples) // block
    blocks = samples[len(samples) - count * block :].reshape(count, block).astype(np.float64)
    loud = np.flatnonzero(np.sqrt(np.mean(blocks**2, axis=1)) >= _SILENT_RMS) if count else np.zeros(0, int)
    return (count - 1 - int(loud[-1])) * block if len(loud) else len(samples)


def _speech(
    samples: Samples,
    phonemes: list[host_pb2.Phoneme],
    *,
    end_of_sentence: bool = False,
    question: bool = False,
) -> host_pb2.RenderRequest.Speech:
    return host_pb2.RenderRequest.Speech(
        pcm=samples.astype("<i2").tobytes(),
        phonemes=phonemes,
        end_of_sentence=end_of_sentence,
        question=question,
    )
