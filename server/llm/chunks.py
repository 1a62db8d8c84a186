"""Reads the chunks of a streamed chat completion, whichever SDK gave them, and trusts none of them."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from server.llm.provider import ProviderFailed, Usage

USAGE_SECONDS: Final = 0.25
"""How long the number of tokens may take after the last word; an answer is not held up longer for it."""
_REASON: Final = re.compile(r"[a-z_]{1,30}")
_LONGEST_WAIT: Final = 3600.0


class ChunkReader:
    """Takes one answer's chunks.

    Args:
        usage: Is filled in.
    """

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self._finish: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the model has said that it is done; only the number of tokens can follow."""
        return self._finish is not None

    def text(self, chunk: Any) -> str:
        """The words of a chunk; empty for one with a role, thoughts, or tokens only.

        Raises:
            ProviderFailed: It is not a chunk.
        """
        try:
            if (counted := getattr(chunk, "usage", None)) is not None:
                self._usage.input_tokens = _count(getattr(counted, "prompt_tokens", None))
                self._usage.output_tokens = _count(getattr(counted, "completion_tokens", None))
            for choice in (chunk.choices or ())[:1]:
                self._finish = choice.finish_reason or self._finish
                content = choice.delta.content if choice.delta is not None else None
                if content:
                    if not isinstance(content, str):
                        raise TypeError
                    return content
        except (TypeError, AttributeError, LookupError):
            raise not_an_answer() from None
        return ""

    def end(self) -> None:
        """Checks that the answer is whole: a stream that broke off ends as quietly as one that is done.

        Raises:
            ProviderFailed: It is not.
        """
        if self._finish is None:
            raise ProviderFailed("ended without saying that it was done")
        if self._finish != "stop":
            # Too long, or not to be said: that is about this question, the service is well.
            reason = self._finish if _REASON.fullmatch(str(self._finish)) else "for a reason of its own"
            raise ProviderFailed(f"stopped early ({reason})", counts=False)


def not_an_answer() -> ProviderFailed:
    """The failure of a service that sent something else."""
    return ProviderFailed("sent something that is not an answer")


def status_failure(status: int, headers: Mapping[str, str]) -> ProviderFailed:
    """What an error status means, in words of our own: the service's may quote the question or the key."""
    wait = _retry_after(headers.get("retry-after", "")) if status in {429, 503} else None
    match status:
        case 401 | 403:
            fix = "Check the key and what it may do."
            return ProviderFailed(f"refused the key ({status})", fix=fix, lasting=True)
        case 404:
            fix = "Check the model and base_url."
            return ProviderFailed("does not know the model (404)", fix=fix, lasting=True)
        case 429:
            return ProviderFailed("is over its rate limit or out of credit (429)", retry_after=wait)
        case _:
            counts = status >= 500 or status == 408
            return ProviderFailed(f"answered with status {status}", retry_after=wait, counts=counts)


def _retry_after(told: str) -> float | None:
    """Seconds of a `Retry-After`: a number or a date (RFC 9110, 10.2.3); None when it is neither."""
    if told.isascii() and told.isdigit():
        return min(float(told[:9]), _LONGEST_WAIT)
    try:
        moment = email.utils.parsedate_to_datetime(told).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, moment - time.time()), _LONGEST_WAIT)


def _count(tokens: object) -> int | None:
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None
