"""The language model that comes with viseme: the chat host's own OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import openai

from server.errors import AssetMissing, HostLost, VisemeError
from server.host_calls import ModelHosts
from server.llm.openai_compatible import OpenAICompatible
from server.llm.provider import Manner, Message, ProviderFailed, Usage

_SAMPLING: Final = {"repeat_penalty": 1.1}
"""Without a penalty the small model loops and apologises over and over (measured over 20 questions)."""

SMALL_MODEL: Final = Manner(
    persona="You are a friendly assistant. Answer with one short sentence.",
    max_tokens=64,
    examples=(
        ("Hello, how are you?", "I'm very well, thank you! How can I help you today?"),
        ("What is the largest planet?", "Jupiter is the largest planet in our solar system."),
        ("I am bored.", "I'm sorry to hear that. How about a walk, some music, or a good book?"),
    ),
    max_sentences=2,
)
"""The best of eight manners measured with SmolLM2-135M. Longer personas and more examples are parroted, none
at all gives essays, and facts in examples leak into answers."""


class EmbeddedProvider:
    """Asks the chat host, which is started when it is needed.

    Args:
        hosts: The model hosts.
        host: Name of the chat host.
    """

    manner: Final[Manner | None] = SMALL_MODEL

    def __init__(self, hosts: ModelHosts, host: str) -> None:
        self._hosts = hosts
        self._host = host
        self._address = ("", "", "")
        self._client: OpenAICompatible | None = None
        self.languages: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """`embedded/MODEL`; before the host has said which model it serves, `embedded/HOST`."""
        return self._client.name if self._client else f"embedded/{self._host}"

    async def prepare(self) -> None:
        """Starts the host and learns where it listens; after a restart that is somewhere else.

        Raises:
            ProviderFailed: It does not start or lacks its model.
        """
        try:
            described = await self._hosts.describe(self._host)
        except VisemeError as error:
            raise ProviderFailed(error.message, fix=error.fix, error=error) from error
        if not described.ready or not described.openai_base_url:
            missing = AssetMissing(described.problem or None, fix=described.fix or None, host=self._host)
            raise ProviderFailed(missing.message, fix=missing.fix, error=missing)
        model = described.models[0] if described.models else None
        address = (described.openai_base_url, described.openai_api_key, model.name if model else self._host)
        if self._client is None or address != self._address:
            previous, self._address = self._client, address
            self.languages = frozenset(tag.partition("-")[0] for tag in (model.languages if model else ()))
            self._client = OpenAICompatible(
                "embedded",
                address[2],
                base_url=address[0],
                api_key=address[1],
                temperature=0,
                count_tokens=True,
                extra=_SAMPLING,
            )
            if previous is not None:
                await previous.close()

    async def close(self) -> None:
        """Closes the connections; the host belongs to the pool."""
        if self._client is not None:
            await self._client.close()

    async def stream(self, messages: list[Message], *, max_tokens: int, usage: Usage) -> AsyncGenerator[str]:
        """See `Provider.stream`."""
        if self._client is None:
            raise ProviderFailed("is not prepared")
        try:
            async with aclosing(self._client.stream(messages, max_tokens=max_tokens, usage=usage)) as pieces:
                async for piece in pieces:
                    yield piece
        except ProviderFailed as failure:
            cause = failure.__cause__
            if cause is None or isinstance(cause, openai.APIStatusError | openai.APITimeoutError):
                raise
            # It is on this machine: the connection ends when the host does.
            raise ProviderFailed(failure.problem, error=HostLost(host=self._host)) from cause
