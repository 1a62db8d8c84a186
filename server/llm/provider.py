"""What the server asks of a language model, whoever runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

from server.errors import VisemeError


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Manner:
    """How a model is made to answer as people speak.

    Attributes:
        persona: System message.
        examples: Questions and answers that show the manner.
        max_tokens: Longest answer.
        max_sentences: Sentences of its answer that are used; 0 for all. An answer of few sentences also ends
            with its first line.
    """

    persona: str
    max_tokens: int
    examples: tuple[tuple[str, str], ...] = ()
    max_sentences: int = 0


@dataclass(slots=True)
class Usage:
    """Tokens of one answer as the service counted them; None where it did not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None


class ProviderFailed(Exception):  # noqa: N818 (named after what happened)
    """A provider gave no answer, or broke one off.

    The message is a few words for the operator: never a key, never what a user said.

    Args:
        problem: What happened, for example `refused the key (401)`.
        fix: What the operator can do about it, or None.
        error: The error of ours behind it, such as a model that is not installed.
        retry_after: Seconds for which the service wants to be left alone, when it said so.
        lasting: Whether it will be the same until somebody does something.
        counts: Whether it says that the service is ill; one question that it refuses does not.
    """

    def __init__(
        self,
        problem: str,
        *,
        fix: str | None = None,
        error: VisemeError | None = None,
        retry_after: float | None = None,
        lasting: bool = False,
        counts: bool = True,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix
        self.error = error
        self.retry_after = retry_after
        self.lasting = lasting
        self.counts = counts


class Provider(Protocol):
    """A language model that answers in a stream."""

    @property
    def name(self) -> str:
        """`PROVIDER/MODEL`, as logs and the caller see it."""

    @property
    def languages(self) -> frozenset[str]:
        """Languages it answers well in (`en`, `zh`); empty when it knows them all."""

    @property
    def manner(self) -> Manner | None:
        """The manner it needs, when that of the settings does not suit it."""

    async def prepare(self) -> None:
        """Makes it ready to be asked; takes no time when it is.

        Raises:
            ProviderFailed: It cannot be asked.
        """

    async def close(self) -> None:
        """Closes its connections."""

    def stream(self, messages: list[Message], *, max_tokens: int, usage: Usage) -> AsyncGenerator[str]:
        """Asks, and gives the answer's text in pieces, none of them empty.

        Closing the iterator ends the request. It ends by itself only when the model has said that it is done.

        Args:
            messages: The conversation, the question last.
            max_tokens: Longest answer.
            usage: Is filled in when the service tells it.

        Raises:
            ProviderFailed: No answer, or not a whole one.
        """
