"""Settings of the language models: the table `[llm]`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from server.config_table import Table

_OURS: Final = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "temperature",
        "n",
        "tools",
        "tool_choice",
        "functions",
        "function_call",
        "response_format",
    }
)
"""Fields of a request that are not the operator's: a reply is one stream of words, and runs no tool."""


class LlmProvider(Table):
    """One language model of a service."""

    name: str = Field(min_length=1, pattern=r"^[a-z0-9_-]+$")
    """Name in logs and in the reply."""
    model: str = Field(min_length=1)
    kind: Literal["openai", "zhipuai"] = "openai"
    """`openai`: any OpenAI-compatible API; `zhipuai`: GLM through its own SDK, viseme[zhipuai]."""
    base_url: str = ""
    """URL up to `/v1`; empty: the service's own."""
    api_key_env: str = ""
    """Name of the environment variable that holds the key."""
    api_key_file: Path | None = None
    """File that holds the key, when the variable does not; only its owner may read it."""
    temperature: float = Field(default=0.6, ge=0, le=2)
    first_token: float | None = Field(default=None, gt=0)
    """Seconds to its first token; None: as `deadlines` say."""
    count_tokens: bool = True
    """Ask for the number of tokens; a few services refuse the question."""
    input_price: float | None = Field(default=None, ge=0)
    """Of a million tokens that are sent, in the currency of all prices; None: unknown."""
    output_price: float | None = Field(default=None, ge=0)
    """Of a million tokens that are written."""
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    """Further fields of the request, such as those that turn thinking off."""

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        # Not quoted: whoever writes a key there shall not find it in a log.
        parts = urlsplit(url)
        if url and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError("write it as https://HOST/v1")
        if parts.username or parts.password:
            raise ValueError("keys do not belong in a URL; use api_key_env or api_key_file")
        return url

    @field_validator("api_key_file", mode="before")
    @classmethod
    def _path(cls, path: object) -> object:
        return Path(path).expanduser().absolute() if isinstance(path, str) and path else path or None

    @field_validator("extra")
    @classmethod
    def _only_further(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if refused := sorted(_OURS & extra.keys()):
            raise ValueError(f"{refused[0]} is set by viseme itself")
        return extra

    @model_validator(mode="after")
    def _has_key(self) -> Self:
        if self.kind == "zhipuai" and not self.api_key_env and self.api_key_file is None:
            raise ValueError("zhipuai needs api_key_env or api_key_file")
        return self


class Llm(Table):
    """The language models and how they are asked."""

    providers: tuple[LlmProvider, ...] = ()
    """Asked in this order, each when the one before it gave no first token."""
    embedded: bool = True
    """Ask the embedded chat host when no provider answers."""
    persona: str = (
        "You are a friendly presenter who talks with people by video. Answer in one to three short spoken "
        "sentences. Use plain words, no lists, no markup and no emoji."
    )
    """Who answers; the system message of every provider."""
    personas: dict[str, str] = Field(default_factory=dict)
    """The same for single avatars, by `avatars/ID`."""
    max_tokens: int = Field(default=160, gt=0)
    """Longest reply in tokens."""
    max_reply_seconds: float = Field(default=20, gt=0)
    """Longest reply when spoken; sentences that would go beyond it are left out."""
    breaker_failures: int = Field(default=2, gt=0)
    """Failures in a row after which a provider is left alone, if another one is behind it."""
    breaker_seconds: float = Field(default=30, gt=0)
    """How long; then one question finds out whether it is well again."""

    @field_validator("personas")
    @classmethod
    def _named(cls, personas: dict[str, str]) -> dict[str, str]:
        for name in personas:
            if not name.startswith("avatars/"):
                raise ValueError(f"write the avatar as avatars/ID, not {name!r}")
        return personas
