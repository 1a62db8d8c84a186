"""Any service with OpenAI's chat completions API: OpenAI, DeepSeek, GLM, Ollama, vLLM, llama.cpp."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Final

import openai

from server.llm.provider import Manner, Message, ProviderFailed

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

    from server.config import LlmProvider

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
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self._name = name
        self._model = model
        self._temperature = temperature
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

    async def stream(self, messages: list[Message], *, max_tokens: int) -> AsyncGenerator[str]:
        """See `Provider.stream`."""
        try:
            reply = await self._client.chat.completions.create(
                model=self._model,
                messages=[_parameter(message) for message in messages],
                max_tokens=max_tokens,
                temperature=self._temperature,
                stream=True,
                extra_body=self._extra,
            )
        except (openai.OpenAIError, OSError, ValueError) as error:
            raise _failure(error) from error
        finished: str | None = None
        try:
            async for chunk in reply:
                for choice in chunk.choices[:1]:
                    finished = choice.finish_reason or finished
                    if choice.delta.content:
                        yield choice.delta.content
        # Half a JSON document, a chunk without the expected fields: a service may send anything.
        except (openai.OpenAIError, OSError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise _failure(error) from error
        except Exception as error:
            # The SDK lets the errors of its transport through while a stream is read.
            if type(error).__module__.partition(".")[0] not in {"httpx", "httpx2", "httpcore", "httpcore2"}:
                raise
            raise ProviderFailed("broke the connection") from error
        finally:
            await reply.close()
        if finished != "stop":
            raise ProviderFailed(
                "ended without saying that it was done" if finished is None else f"stopped early ({finished})"
            )


class ConfiguredProvider(OpenAICompatible):
    """A provider of the configuration, with its key from the environment."""

    def __init__(self, config: LlmProvider) -> None:
        self._key_variable = config.api_key_env
        self._has_key = not config.api_key_env or bool(os.environ.get(config.api_key_env))
        super().__init__(
            config.name,
            config.model,
            base_url=config.base_url,
            api_key=os.environ.get(config.api_key_env, "") if config.api_key_env else "",
            temperature=config.temperature,
        )

    async def prepare(self) -> None:
        """Checks that there is a key.

        Raises:
            ProviderFailed: The environment variable is empty.
        """
        if not self._has_key:
            raise ProviderFailed(
                f"has no key in {self._key_variable}",
                fix=f"Set {self._key_variable} in the server's environment.",
            )


def _parameter(message: Message) -> ChatCompletionMessageParam:
    if message.role == "system":
        return {"role": "system", "content": message.content}
    if message.role == "assistant":
        return {"role": "assistant", "content": message.content}
    return {"role": "user", "content": message.content}


def _failure(error: Exception) -> ProviderFailed:
    """What happened in a few words of our own: the service's message may quote the request or the key."""
    fix: str | None = None
    match error:
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            problem, fix = f"refused the key ({error.status_code})", "Check the key and what it may do."
        case openai.RateLimitError():
            problem = "is over its rate limit or out of credit (429)"
        case openai.NotFoundError():
            problem, fix = "does not know the model (404)", "Check the model and base_url."
        case openai.APIStatusError():
            problem = f"answered with status {error.status_code}"
        case openai.APITimeoutError():
            problem = "did not answer in time"
        case openai.APIConnectionError():
            problem = "cannot be reached"
        case _:
            problem = "sent something that is not an answer"
    return ProviderFailed(problem, fix=fix)
