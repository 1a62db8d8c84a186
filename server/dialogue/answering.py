"""From what the user said to sentences fit to be spoken, one by one while the model writes on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Protocol

from server.dialogue.segmenter import Segment, Segmenter
from server.dialogue.spoken import language_of, speakable, spoken_seconds
from server.errors import LlmUnavailable
from server.llm.failover import Answer, Question

_SECONDS_PER_UNIT: Final = 0.24
_LONG_CLAUSE: Final = 40.0
_OVERTIME: Final = 1.5


class Answers(Protocol):
    """Whoever writes the answers; `server.llm.failover.Failover` is one."""

    def ask(self, question: Question, answer: Answer) -> AsyncGenerator[str]:
        """Gives the answer's text as it is written, and fills in `answer`."""


async def sentences(
    answers: Answers, question: Question, answer: Answer, *, max_seconds: float
) -> AsyncGenerator[Segment]:
    """Gives the sentences of the answer, each as soon as it is certain.

    What cannot be spoken is stripped. The answer ends before the sentence that would make it longer than
    `max_seconds`; the model is then told to stop. When it breaks off, an unfinished sentence is dropped.

    Args:
        answers: Who is asked.
        question: What is asked.
        answer: Is filled in.
        max_seconds: Longest answer when it is spoken, about.

    Raises:
        LlmUnavailable: Nobody answered, or nothing came that can be spoken.
    """
    most_units = max_seconds / _SECONDS_PER_UNIT
    segmenter = Segmenter(long_clause=min(_LONG_CLAUSE, most_units), longest=most_units)
    spoken = 0.0
    given = whole = 0
    at_sentence_end = True
    async with aclosing(_segments(answers, question, answer, segmenter)) as segments:
        async for segment in segments:
            text = speakable(segment.text)
            if not text:
                continue
            spoken += spoken_seconds(text)
            # A sentence that has begun is ended, if that does not take much longer.
            if given and spoken > max_seconds * (1 if at_sentence_end else _OVERTIME):
                return
            given += 1
            at_sentence_end = segment.complete
            whole += segment.complete
            yield Segment(text, segment.complete)
            if answer.max_sentences and (whole >= answer.max_sentences or segment.text.endswith("\n")):
                return
    if not given:
        raise LlmUnavailable(f"{answer.provider} broke off before its first sentence was complete.")


async def _segments(
    answers: Answers, question: Question, answer: Answer, segmenter: Segmenter
) -> AsyncGenerator[Segment]:
    async with aclosing(answers.ask(question, answer)) as pieces:
        async for piece in pieces:
            for segment in segmenter.push(piece):
                yield segment
    for segment in segmenter.close():
        if segment.complete or not answer.truncated:
            yield segment


def joined(texts: list[str]) -> str:
    """The sentences as one text: with spaces between them, except after Chinese."""
    whole = ""
    for text in texts:
        whole += f" {text}" if whole and language_of(whole[-2:]) == "en" else text
    return whole
