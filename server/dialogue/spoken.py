"""Makes a written sentence fit to be spoken, and tells its language and how long it takes to say."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_HAN: Final = re.compile(r"[\u3400-\u9fff]")
_LATIN_WORD: Final = re.compile(r"[^\W\d_\u3400-\u9fff]+|\d+")
_LINK: Final = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ADDRESS: Final = re.compile(r"https?://\S+|www\.\S+")
_TAG: Final = re.compile(r"<[^<>]{1,40}>")
_LINE_START: Final = re.compile(r"^\s*(?:#{1,6}\s+|>\s*|[-*+•]\s+|\d{1,2}[.)]\s+)+", re.MULTILINE)
_EMPHASIS: Final = re.compile(r"[*_`~]+(?=\S)|(?<=\S)[*_`~]+|[*`]")
_STAGE_DIRECTION: Final = re.compile(r"\*[^*\n]{1,40}\*(?=\s|$)|\[[^\]\n]{1,40}\]")
_BLANKS: Final = re.compile(r"\s+")
_BLANK_BEFORE_MARK: Final = re.compile(r" ([.,;:!?])(?=\s|$)")

_SECONDS_PER_HAN: Final = 0.24
_SECONDS_PER_WORD: Final = 0.37


def speakable(text: str) -> str:
    """Strips from a sentence what cannot be spoken: markup, links, list marks, emoji, control characters.

    Returns:
        The words, in one line; empty when nothing is left to say.
    """
    text = _LINK.sub(r"\1", text)
    text = _ADDRESS.sub("", text)
    text = _TAG.sub("", text)
    text = _LINE_START.sub("", text)
    text = _STAGE_DIRECTION.sub(_emphasised_or_nothing, text)
    text = _EMPHASIS.sub("", text)
    text = "".join(character for character in text if _is_spoken(character))
    text = _BLANK_BEFORE_MARK.sub(r"\1", _BLANKS.sub(" ", text)).strip()
    return text if any(character.isalnum() for character in text) else ""


def language_of(text: str) -> str:
    """`zh` when most of a text is Chinese, else `en`."""
    han = len(_HAN.findall(text))
    return "zh" if han * 2 > len(_LATIN_WORD.findall(text)) + han else "en"


def spoken_seconds(text: str) -> float:
    """About how long a text takes to say, in seconds."""
    return _SECONDS_PER_HAN * len(_HAN.findall(text)) + _SECONDS_PER_WORD * len(_LATIN_WORD.findall(text))


def is_question(text: str) -> bool:
    """Whether a sentence ends in a question mark."""
    return text.rstrip(" \t\n”’」』）)】》\"'!！～~").endswith(("?", "？"))


def _emphasised_or_nothing(match: re.Match[str]) -> str:
    """`*very*` is a word said with stress; `*smiles warmly*` and `[laughs]` are directions, not words."""
    inside = match.group()[1:-1]
    return inside if match.group().startswith("*") and " " not in inside.strip() else ""


def _is_spoken(character: str) -> bool:
    if character in "\n\t":
        return True
    # So: emoji and other pictures; Cf and the variation selectors join them; Cc, Co, Cn, Cs: not text.
    unspoken = unicodedata.category(character) in {"So", "Sk", "Cf", "Cc", "Co", "Cn", "Cs"}
    return character == "°" or not (unspoken or 0xFE00 <= ord(character) <= 0xFE0F)
