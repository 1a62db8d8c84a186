"""What came of one question to one language model: how it ended, how fast it was, what it cost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

import structlog

from server.llm.provider import ProviderFailed, Usage

Outcome = Literal["done", "truncated", "failed", "stopped"]
"""`truncated`: it broke off after its first word; `stopped`: whoever asked had heard enough or went away."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Of a million tokens, in the currency of the operator's choice; None where unknown."""

    input: float | None = None
    output: float | None = None


@dataclass(slots=True)
class Account:
    """One question to one provider.

    Attributes:
        provider: `PROVIDER/MODEL`.
        prices: What its tokens cost.
        usage: Its tokens, as the service counted them.
        outcome: How it ended.
        problem: What went wrong, in words without contents or keys; empty when nothing did.
        first_token_seconds: From the question to the first word; None when there was none.
    """

    provider: str
    prices: Prices
    usage: Usage = field(default_factory=Usage)
    outcome: Outcome = "stopped"
    problem: str = ""
    first_token_seconds: float | None = None
    _asked: float = field(default_factory=time.monotonic)

    @property
    def cost(self) -> float | None:
        """What it cost; None when the tokens or the prices are not known."""
        counts, prices = self.usage, self.prices
        if (
            counts.input_tokens is None
            or counts.output_tokens is None
            or prices.input is None
            or prices.output is None
        ):
            return None
        return (counts.input_tokens * prices.input + counts.output_tokens * prices.output) / 1e6

    def token(self) -> None:
        """A word has come."""
        if self.first_token_seconds is None:
            self.first_token_seconds = time.monotonic() - self._asked

    def failed(self, failure: ProviderFailed) -> None:
        """It failed."""
        self.outcome = "failed" if self.first_token_seconds is None else "truncated"
        self.problem = failure.problem

    def log(self, log: structlog.stdlib.BoundLogger) -> None:
        """Writes a line about it."""
        if self.problem:
            log.warning("llm_failed", provider=self.provider, problem=self.problem, outcome=self.outcome)
            if self.first_token_seconds is None:
                return
        log.info(
            "llm_answered",
            provider=self.provider,
            outcome=self.outcome,
            first_token_seconds=None
            if self.first_token_seconds is None
            else round(self.first_token_seconds, 3),
            input_tokens=self.usage.input_tokens,
            output_tokens=self.usage.output_tokens,
            cost=self.cost,
        )
