"""Long texts in parts that the model speaks well."""

from __future__ import annotations

import re
from typing import Final

MAX_SYMBOLS: Final = 510
"""Most symbols that the model takes."""
_COMFORTABLE: Final = 200
"""Symbols that the model speaks best at once; longer inputs are hurried."""
_SENTENCE_END: Final = re.compile(r"(?<=[.!?…])\s+|(?<=[.!?…][”\")])\s+")
_BREAKS: Final = (re.compile(r"(?<=[;:—])\s+"), re.compile(r"(?<=,)\s+"), re.compile(r"\s+"))


def split(symbols: str) -> list[str]:
    """Divides symbols into parts that the model can speak: whole sentences where possible.

    The first part is only the first sentence, so that it can be heard soon. Nothing but spaces is lost.
    """
    parts: list[str] = []
    for sentence in (part for part in _SENTENCE_END.split(symbols.strip()) if part):
        if len(parts) > 1 and len(parts[-1]) + 1 + len(sentence) <= _COMFORTABLE:
            parts[-1] = f"{parts[-1]} {sentence}"
        else:
            parts += _shorten(sentence, _BREAKS)
    return parts


def _shorten(sentence: str, breaks: tuple[re.Pattern[str], ...]) -> list[str]:
    if len(sentence) <= _COMFORTABLE or (not breaks and len(sentence) <= MAX_SYMBOLS):
        return [sentence]
    if not breaks:
        return [sentence[start : start + MAX_SYMBOLS] for start in range(0, len(sentence), MAX_SYMBOLS)]
    parts: list[str] = []
    for clause in breaks[0].split(sentence):
        if parts and len(parts[-1]) + 1 + len(clause) <= _COMFORTABLE:
            parts[-1] = f"{parts[-1]} {clause}"
        else:
            parts.append(clause)
    return [part for clause in parts for part in _shorten(clause, breaks[1:])]
