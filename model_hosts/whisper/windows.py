"""Windows of audio that a recogniser can take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SAMPLE_RATE: Final = 16_000
LONGEST_SECONDS: Final = 27.0
"""Longest stretch; Whisper takes 30 s, margins and some silence included."""
_COMFORTABLE_SECONDS: Final = 15.0
"""Neighbouring stretches are joined up to this: text comes sooner, and a call can be cancelled sooner."""
_MARGIN_SECONDS: Final = 1.0
"""Silence of the room that stays around speech: Whisper does worse after a sudden start."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of audio, in samples.

    Attributes:
        start: First sample.
        end: Sample after the last one.
    """

    start: int
    end: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.start) / SAMPLE_RATE


def windows(speech: Sequence[Stretch], samples: int) -> list[Stretch]:
    """Joins stretches of speech to windows that hold whole stretches with a little silence around.

    Args:
        speech: Stretches in order, none longer than `LONGEST_SECONDS`.
        samples: Samples of the whole audio.

    Returns:
        Windows in order that do not overlap.
    """
    joined: list[Stretch] = []
    for stretch in speech:
        if joined and (stretch.end - joined[-1].start) / SAMPLE_RATE <= _COMFORTABLE_SECONDS:
            joined[-1] = Stretch(joined[-1].start, stretch.end)
        else:
            joined.append(stretch)
    margin = int(_MARGIN_SECONDS * SAMPLE_RATE)
    padded: list[Stretch] = []
    for index, window in enumerate(joined):
        before = joined[index - 1].end if index else -2 * margin
        after = joined[index + 1].start if index + 1 < len(joined) else samples + 2 * margin
        start = max(window.start - margin, (before + window.start) // 2, 0)
        end = min(window.end + margin, (window.end + after) // 2, samples)
        padded.append(Stretch(start, end))
    return padded
