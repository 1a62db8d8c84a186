"""Asks each language model once, to see how it is."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass

from server.errors import VisemeError
from server.llm.account import Account
from server.llm.breaker import Breaker
from server.llm.failover import Answer, Candidate, Failover, Patience, Question
from server.llm.provider import Manner


@dataclass(frozen=True, slots=True)
class Trial:
    """How one language model did.

    Attributes:
        account: How it ended, how fast it began, its tokens and their price.
        seconds: Until its answer was whole, or it failed.
        fix: What can be done about its problem, or empty.
    """

    account: Account
    seconds: float
    fix: str

    @property
    def answers(self) -> bool:
        """Whether it gave a whole answer."""
        return self.account.outcome == "done"


async def try_out(candidate: Candidate, manner: Manner, patience: Patience) -> Trial:
    """Asks one language model something short; connections are left open.

    Args:
        candidate: The model; its breaker is not asked and does not hear of it.
        manner: How it answers.
        patience: Longest times; a model without a deadline of its own has that of the last one.
    """
    accounts: list[Account] = []
    fixes: list[str] = []
    alone = Candidate(candidate.provider, Breaker(1, 1), candidate.prices, candidate.first_token_seconds)
    failover = Failover([alone], manner=lambda _: manner, patience=patience, ended=accounts.append)
    began = time.monotonic()
    try:
        async with aclosing(failover.ask(Question("Say hello.", "en"), Answer())) as pieces:
            async for _ in pieces:
                pass
    except VisemeError as error:
        fixes = [error.fix or ""]
    return Trial(accounts[0], time.monotonic() - began, "".join(fixes))
