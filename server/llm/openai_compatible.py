"""Any service with OpenAI's chat completions API: OpenAI, DeepSeek, GLM, Ollama, vLLM, llama.cpp."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import openai

from server.llm.chunks import USAGE_SECONDS, ChunkReader, not_an_answer, status_failure
from server.llm.keys import read_key
from server.llm.provider import Manner, Message, ProviderFailed, Usage

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

    from server.llm.config import LlmProvider

_OPENAI: Final = "https://api.openai.com/v1"
_NO_KEY_NEEDED: Final = "none"
_CONNECT_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 120.0
"""Nothing at all from the service. The deadlines that count are the caller's: comments defeat this one."""


class OpenAICompatible:
    """A model behind OpenAI's API.

    Args:
        name: Name of the service.
        model: Name of the model there.
        base_url: URL up to `/v1`.
        api_key: The key; empty when the service needs none.
        temperature: 0 for the likeliest answer.
        languages: Languages it answers well in; empty for all.
        manner: The manner it needs, when that of the settings does not suit it.
        count_tokens: Whether the service is asked for the number of tokens.
        extra: Further fields of the request's body.
    """

    def __init__(
        self,
        name: str,
        model: str,
        *,
        base_url: str,
        api_key: str = "",
        temperature: float = 0.6,
        languages: frozenset[str] = frozenset(),
        manner: Manner | None = None,
        count_tokens: bool = False,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self._name = name
        self._model = model
        self._temperature = temperature
        self._count_tokens = count_tokens
        self._extra = dict(extra or {})
        self.languages = languages
        self.manner = manner
        # Retrying is the failover's business: a retry here would eat its deadline.
        self._client = openai.AsyncOpenAI(
            api_key=api_key or _NO_KEY_NEEDED,
            base_url=base_url,
            max_retries=0,
            timeout=openai.Timeout(_IDLE_SECONDS, connect=_CONNECT_SECONDS),
        )

    @property
    def name(self) -> str:
        """`PROVIDER/MODEL`."""
        return f"{self._name}/{self._model}"

    async def prepare(self) -> None:
        """Nothing to do: the connection is made with the first request."""

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def stream(self, messages: list[Message], *, max_tokens: int, usage: Usage) -> AsyncGenerator[str]:
        """See `Provider.stream`."""
        reader = ChunkReader(usage)
        with _failures():
            reply = await self._client.chat.completions.create(
                model=self._model,
                messages=[_parameter(message) for message in messages],
                max_tokens=max_tokens,
                temperature=self._temperature,
                stream=True,
                stream_options={"include_usage": True} if self._count_tokens else openai.omit,
                extra_body=self._extra,
            )
        try:
            chunks = aiter(reply)
            while True:
                with _failures():
                    chunk = await _next(chunks, reader)
                if chunk is None:
                    break
                if text := reader.text(chunk):
                    yield text
        finally:
            await reply.close()
        reader.end()


class ConfiguredProvider(OpenAICompatible):
    """A provider of the configuration, with its key from the environment or a file."""

    def __init__(self, config: LlmProvider) -> None:
        self._config = config
        super().__init__(
            config.name,
            config.model,
            base_url=config.base_url or _OPENAI,
            temperature=config.temperature,
            count_tokens=config.count_tokens,
            extra=config.extra,
        )

    async def prepare(self) -> None:
        """Reads the key; a file that was written anew counts from the next question.

        Raises:
            ProviderFailed: There is none.
        """
        key = read_key(self._config.api_key_env, self._config.api_key_file)
        self._client.api_key = key or _NO_KEY_NEEDED


async def _next(chunks: AsyncIterator[object], reader: ChunkReader) -> object | None:
    """The next chunk; None at the end, or when the number of tokens does not come."""
    try:
        async with asyncio.timeout(USAGE_SECONDS if reader.finished else None):
            return await anext(chunks, None)
    except TimeoutError:
        if reader.finished:
            return None
        raise


@contextmanager
def _failures() -> Iterator[None]:
    """What the SDK raises, as ours."""
    try:
        yield
    # Half a JSON document, a chunk without the expected fields: a service may send anything.
    except (openai.OpenAIError, OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise _failure(error) from error
    except Exception as error:
        # The SDK lets the errors of its transport through while a stream is read.
        if type(error).__module__.partition(".")[0] not in {"httpx", "httpx2", "httpcore", "httpcore2"}:
            raise
        raise ProviderFailed("broke the connection") from error


def _parameter(message: Message) -> ChatCompletionMessageParam:
    if message.role == "system":
        return {"role": "system", "content": message.content}
    if message.role == "assistant":
        return {"role": "assistant", "content": message.content}
    return {"role": "user", "content": message.content}


def _failure(error: Exception) -> ProviderFailed:
    match error:
        case openai.APIStatusError():
            return status_failure(error.status_code, error.response.headers)
        case openai.APITimeoutError():
            return ProviderFailed("did not answer in time")
        case openai.APIConnectionError():
            return ProviderFailed("cannot be reached")
        case _:
            return not_an_answer()
