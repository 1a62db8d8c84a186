"""Asks language models in order: the next one answers when one gives no first token.

After the first token the model is never changed: a reply that one model began is not ended by another. When a
stream breaks off later, what was written stands and the answer is marked as truncated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from server.errors import LlmUnavailable, VisemeError
from server.llm.account import Account, Prices
from server.llm.breaker import Breaker
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
        avatar: `avatars/ID` of who answers; decides on the persona.
    """

    text: str
    language: str
    avatar: str = ""


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


@dataclass(frozen=True, slots=True)
class Candidate:
    """A language model, and how this server deals with it.

    Attributes:
        provider: The model.
        breaker: Remembers how it fared.
        prices: What its tokens cost.
        first_token_seconds: Its own deadline; None for the one of its place in the order.
    """

    provider: Provider
    breaker: Breaker
    prices: Prices
    first_token_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """Longest times in seconds.

    Attributes:
        prepare: To make a provider ready.
        failover: From the question to the first token, of a model with another one behind it.
        first_token: The same of the last one.
        gap: Between two tokens.
    """

    prepare: float
    failover: float
    first_token: float
    gap: float


class _Roster:
    """Candidates that are in use until the last answer of theirs has ended."""

    def __init__(self, candidates: Sequence[Candidate], manner: Callable[[str], Manner]) -> None:
        self.candidates = tuple(candidates)
        self.manner = manner
        self._answers = 0
        self._retired = False

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        self._answers += 1
        try:
            yield
        finally:
            self._answers -= 1
            if self._retired:
                await self.retire()

    async def retire(self) -> None:
        """Closes the providers, now or when the last answer has ended."""
        self._retired = True
        if not self._answers:
            for candidate in self.candidates:
                await candidate.provider.close()


class Failover:
    """The language models of this server, in order.

    Args:
        candidates: Asked one after another.
        manner: Gives how they answer for an avatar, but for those with a manner of their own.
        patience: Longest times.
        ended: Is told what came of each question to a provider.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        *,
        manner: Callable[[str], Manner],
        patience: Patience,
        ended: Callable[[Account], None] = lambda _: None,
    ) -> None:
        self._roster = _Roster(candidates, manner)
        self._patience = patience
        self._ended = ended

    @property
    def names(self) -> list[str]:
        """`PROVIDER/MODEL` of each, in the order they are asked."""
        return [candidate.provider.name for candidate in self._roster.candidates]

    async def replace(self, candidates: Sequence[Candidate], manner: Callable[[str], Manner]) -> None:
        """Asks others from the next question on; answers under way are ended by those that began them."""
        retired, self._roster = self._roster, _Roster(candidates, manner)
        await retired.retire()

    async def close(self) -> None:
        """Closes the providers."""
        await self._roster.retire()

    async def ask(self, question: Question, answer: Answer) -> AsyncGenerator[str]:
        """Gives the answer's text as it is written.

        Args:
            question: What is asked.
            answer: Is filled in while the stream runs.

        Raises:
            LlmUnavailable: No provider gave a first token.
            VisemeError: The only provider is the embedded one, and this is why it cannot be asked.
        """
        roster = self._roster
        async with roster.in_use(), aclosing(self._ask(roster, question, answer)) as pieces:
            async for piece in pieces:
                yield piece

    async def _ask(self, roster: _Roster, question: Question, answer: Answer) -> AsyncGenerator[str]:
        problems: list[tuple[str, ProviderFailed]] = []
        for number, candidate in enumerate(roster.candidates, 1):
            provider, breaker, last = candidate.provider, candidate.breaker, number == len(roster.candidates)
            ticket = breaker.admit(insist=last)
            if ticket is None:
                problems.append((provider.name, _left_alone(breaker)))
                continue
            account = Account(provider.name, candidate.prices)
            manner = provider.manner or roster.manner(question.avatar)
            writing = self._first_then_rest(candidate, question, manner, account, last=last)
            try:
                async with aclosing(writing) as pieces:
                    async for piece in pieces:
                        if not answer.provider:
                            answer.provider = account.provider = provider.name
                            answer.max_sentences = manner.max_sentences
                        yield piece
                account.outcome = "done"
                breaker.succeeded()
                return
            except ProviderFailed as failure:
                account.failed(failure)
                breaker.failed(ticket, failure)
                if answer.provider:
                    answer.truncated = True
                    return
                problems.append((provider.name, failure))
            finally:
                if account.outcome == "stopped":
                    # Whoever asked has heard enough, or went away.
                    if answer.provider:
                        breaker.succeeded()
                    breaker.abandoned(ticket)
                account.log(_log)
                self._ended(account)
        raise _unavailable(problems)

    async def _first_then_rest(
        self, candidate: Candidate, question: Question, manner: Manner, account: Account, *, last: bool
    ) -> AsyncGenerator[str]:
        """One provider's answer, with deadlines that nothing but words pushes back.

        Raises:
            ProviderFailed: It failed, or was too slow.
        """
        provider, patience = candidate.provider, self._patience
        await _before(time.monotonic() + patience.prepare, provider.prepare(), "did not become ready in time")
        messages = messages_for(manner, provider.languages, question.text, question.language)
        seconds = candidate.first_token_seconds or (patience.first_token if last else patience.failover)
        deadline, problem = time.monotonic() + seconds, "gave no first token in time"
        stream = provider.stream(messages, max_tokens=manner.max_tokens, usage=account.usage)
        async with aclosing(stream) as pieces:
            while (piece := await _before(deadline, anext(pieces, None), problem)) is not None:
                if not piece.strip():
                    # Blanks before the first word are no answer yet, and later no sign of life.
                    if account.first_token_seconds is not None:
                        yield piece
                    continue
                account.token()
                yield piece
                deadline, problem = time.monotonic() + patience.gap, "stopped in the middle"
        if account.first_token_seconds is None:
            raise ProviderFailed("gave an empty answer")


async def _before(deadline: float, awaitable: Awaitable[_T], problem: str) -> _T:
    try:
        # The loop's clock is the monotonic one.
        async with asyncio.timeout(deadline - time.monotonic()):
            return await awaitable
    except TimeoutError:
        raise ProviderFailed(problem) from None


def _left_alone(breaker: Breaker) -> ProviderFailed:
    remaining = breaker.remaining
    words = f"is left alone for {remaining:.0f} s after failures" if remaining else "is being tried again"
    return ProviderFailed(words, retry_after=remaining)


def _unavailable(problems: list[tuple[str, ProviderFailed]]) -> VisemeError:
    if not problems:
        return LlmUnavailable(
            "No language model is configured.", fix="Set llm.embedded = true, or add an [[llm.providers]]."
        )
    if len(problems) == 1 and problems[0][1].error is not None:
        return problems[0][1].error
    told = "; ".join(f"{name}: {failure.problem.rstrip('.')}" for name, failure in problems)
    fix = next((failure.fix for _, failure in problems if failure.fix), None)
    unavailable = LlmUnavailable(f"No language model answers: {told}.", fix=fix)
    waits = [failure.retry_after for _, failure in problems if failure.retry_after is not None]
    if len(waits) == len(problems):
        unavailable.retry_seconds = max(unavailable.retry_seconds, min(waits))
    return unavailable
