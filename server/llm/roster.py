"""The language models of a configuration, in the order they are asked."""

from __future__ import annotations

from server.host_calls import ModelHosts
from server.llm.account import Prices
from server.llm.breaker import Breaker
from server.llm.config import Llm, LlmProvider
from server.llm.embedded import EmbeddedProvider
from server.llm.failover import Candidate
from server.llm.openai_compatible import ConfiguredProvider
from server.llm.provider import Manner, Provider
from server.llm.zhipu import ZhipuProvider


def candidates_of(llm: Llm, hosts: ModelHosts, chat: str) -> list[Candidate]:
    """All language models of the settings; the embedded one is the last.

    Args:
        llm: The settings.
        hosts: The model hosts.
        chat: Name of the chat host.
    """

    def breaker() -> Breaker:
        return Breaker(llm.breaker_failures, llm.breaker_seconds)

    candidates = [
        Candidate(
            provider_of(provider),
            breaker(),
            Prices(provider.input_price, provider.output_price),
            provider.first_token,
        )
        for provider in llm.providers
    ]
    if llm.embedded:
        candidates.append(Candidate(EmbeddedProvider(hosts, chat), breaker(), Prices()))
    return candidates


def provider_of(config: LlmProvider) -> Provider:
    """The provider of one entry of the configuration."""
    return ZhipuProvider(config) if config.kind == "zhipuai" else ConfiguredProvider(config)


def manner_of(llm: Llm, avatar: str) -> Manner:
    """How an avatar answers: with its own persona, else with that of all."""
    return Manner(llm.personas.get(avatar, llm.persona), llm.max_tokens)
