"""Asks language models in order: the next one answers when one gives no first token.

After the first token the model is never changed: a reply that one model began is not ended by another. When a
stream breaks off later, what was written stands and the answer is marked as truncated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from server.errors import LlmUnavailable, VisemeError
from server.llm.prompt import messages_for
from server.llm.provider import Manner, Provider, ProviderFailed

_T = TypeVar("_T")
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("llm")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        text: What the user said.
        language: BCP 47 tag of its language, or empty.
    """

    text: str
    language: str


@dataclass(slots=True)
class Answer:
    """How an answer came about; complete when its stream has ended.

    Attributes:
        provider: `PROVIDER/MODEL` that wrote it; empty before its first token.
        truncated: Whether it broke off before the model was done.
        max_sentences: Sentences of it that are used; 0 for all.
    """

    provider: str = ""
    truncated: bool = False
    max_sentences: int = 0


class Failover:
    """The language models of this server, in order.

    Args:
        providers: Asked one after another.
        manner: How they answer, but for those with a manner of their own.
        prepare_seconds: Longest time to make a provider ready.
        first_token_seconds: From the request to the first token with text in it.
        gap_seconds: Between two tokens.
        begun: Is told which provider gave its first token, and after how many seconds.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        manner: Manner,
        prepare_seconds: float,
        first_token_seconds: float,
        gap_seconds: float,
        begun: Callable[[str, float], None] = lambda _provider, _seconds: None,
    ) -> None:
        self._providers = tuple(providers)
        self._manner = manner
        self._prepare_seconds = prepare_seconds
        self._first_token_seconds = first_token_seconds
        self._gap_seconds = gap_seconds
        self._begun = begun

    @property
    def names(self) -> list[str]:
        """`PROVIDER/MODEL` of each, in the order they are asked."""
        return [provider.name for provider in self._providers]

    async def ask(self, question: Question, answer: Answer) -> AsyncGenerator[str]:
        """Gives the answer's text as it is written.

        Args:
            question: What is asked.
            answer: Is filled in while the stream runs.

        Raises:
            LlmUnavailable: No provider gave a first token.
            VisemeError: The only provider is the embedded one, and this is why it cannot be asked.
        """
        problems: list[tuple[str, ProviderFailed]] = []
        for provider in self._providers:
            asked = time.monotonic()
            try:
                async with aclosing(self._first_then_rest(provider, question)) as pieces:
                    async for piece in pieces:
                        if not answer.provider:
                            answer.provider = provider.name
                            self._begun(provider.name, time.monotonic() - asked)
                            answer.max_sentences = self._manner_of(provider).max_sentences
                        yield piece
                    return
            except ProviderFailed as failure:
                _log.warning("llm_failed", provider=provider.name, problem=failure.problem)
                if answer.provider:
                    answer.truncated = True
                    return
                problems.append((provider.name, failure))
        raise _unavailable(problems)

    def _manner_of(self, provider: Provider) -> Manner:
        return provider.manner or self._manner

    async def _first_then_rest(self, provider: Provider, question: Question) -> AsyncGenerator[str]:
        """One provider's answer, with deadlines that comments in the stream do not push back.

        Raises:
            ProviderFailed: It failed, or was too slow.
        """
        await _within(self._prepare_seconds, provider.prepare(), "did not become ready in time")
        manner = self._manner_of(provider)
        messages = messages_for(manner, provider.languages, question.text, question.language)
        async with aclosing(provider.stream(messages, max_tokens=manner.max_tokens)) as pieces:
            seconds, problem = self._first_token_seconds, "gave no first token in time"
            empty = True
            while True:
                try:
                    piece = await _within(seconds, anext(pieces), problem)
                except StopAsyncIteration:
                    break
                empty = False
                yield piece
                seconds, problem = self._gap_seconds, "stopped in the middle"
            if empty:
                raise ProviderFailed("gave an empty answer")


async def _within(seconds: float, awaitable: Awaitable[_T], problem: str) -> _T:
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except TimeoutError:
        raise ProviderFailed(problem) from None


def _unavailable(problems: list[tuple[str, ProviderFailed]]) -> VisemeError:
    if not problems:
        return LlmUnavailable(
            "No language model is configured.", fix="Set llm.embedded = true, or add an [[llm.providers]]."
        )
    if len(problems) == 1 and problems[0][1].error is not None:
        return problems[0][1].error
    told = "; ".join(f"{name}: {failure.problem.rstrip('.')}" for name, failure in problems)
    fix = next((failure.fix for _, failure in problems if failure.fix), None)
    return LlmUnavailable(f"No language model answers: {told}.", fix=fix)
