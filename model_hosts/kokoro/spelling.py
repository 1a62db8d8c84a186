"""Text as people write it to text as people say it: numbers, dates, money, abbreviations, symbols.

The rules of WeTextProcessing (package `wetext`, Apache-2.0) do most of it for English and Chinese. What they
get wrong in English is put right before they run.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable
from typing import Final

from wetext import Normalizer

_LOG: Final = logging.getLogger(__name__)

_ABBREVIATIONS: Final = {
    "Prof.": "Professor",
    "Gov.": "Governor",
    "Sen.": "Senator",
    "Rep.": "Representative",
    "Gen.": "General",
    "Capt.": "Captain",
    "Jr.": "Junior",
    "Sr.": "Senior",
    "Mt.": "Mount",
    "Ave.": "Avenue",
    "Blvd.": "Boulevard",
    "Rd.": "Road",
    "Dept.": "Department",
    "approx.": "approximately",
    "vs.": "versus",
    "etc.": "et cetera",
    "e.g.": "for example",
    "i.e.": "that is",
    "w/o": "without",
    "w/": "with",
}
_DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DECADES: Final = {
    "0": "thousands",
    "1": "tens",
    "2": "twenties",
    "3": "thirties",
    "4": "forties",
    "5": "fifties",
    "6": "sixties",
    "7": "seventies",
    "8": "eighties",
    "9": "nineties",
}
_CENTURIES: Final = {"16": "sixteen", "17": "seventeen", "18": "eighteen", "19": "nineteen", "20": "twenty"}
_MONEY: Final = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}


def _abbreviation(match: re.Match[str]) -> str:
    word = _ABBREVIATIONS[match[1]]
    # The full stop of an abbreviation at the end of a text also ended the sentence.
    return f"{word}." if match[1].endswith(".") and not match.string[match.end() :].strip() else word


def _street(match: re.Match[str]) -> str:
    after = match.string[match.end() :].lstrip()
    if after[:1].isupper() and not match.string[: match.start()].rstrip()[-1:].isalpha():
        return "Saint"
    before = match.string[: match.start()].rstrip().rpartition(" ")[2]
    if after[:1].isupper() and not before[:1].isupper():
        return "Saint"
    return "Street" if after else "Street."


def _digits(text: str) -> str:
    return " ".join(_DIGITS[int(digit)] for digit in text if digit.isdigit())


def _money(match: re.Match[str]) -> str:
    unit, cent = _MONEY[match[1]]
    whole, cents = match[2], int(match[3])
    units = unit if whole == "1" else f"{unit}s"
    if cents == 0:
        return f"{whole} {units}"
    small = cent if cents == 1 else ("pence" if cent == "penny" else f"{cent}s")
    return f"{cents} {small}" if whole == "0" else f"{whole} {units} and {cents} {small}"


def _decade(match: re.Match[str]) -> str:
    if match[1] == "20" and match[2] == "0":
        return "two thousands"
    if match[2] == "0":
        return f"{_CENTURIES[match[1]]} hundreds"
    return f"{_CENTURIES[match[1]]} {_DECADES[match[2]]}"


def _telephone(match: re.Match[str]) -> str:
    return ", ".join(_digits(group) for group in re.split(r"\D+", match[0]) if group)


def _address(match: re.Match[str]) -> str:
    host = match[1].rstrip("/").replace("/", " slash ").replace(".", " dot ").replace("-", " dash ")
    return host.replace("www dot ", "") if host.startswith("www dot ") else host


_ENGLISH: Final[tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...]] = (
    (re.compile(r"https?://([\w./-]*\w/?)\S*"), _address),
    (
        re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, _ABBREVIATIONS))})(?!\w)"),
        _abbreviation,
    ),
    (re.compile(r"\bSt\.(?!\w)"), _street),
    (re.compile(r"\bNo\. ?(?=\d)"), "number "),
    (re.compile(r"#(?=\d)"), "number "),
    (re.compile(r"([$£€])(\d+)\.(\d\d)(?![\d.]|,\d)(?! ?(?:thousand|million|billion|trillion))"), _money),
    (re.compile(r"\b(1[6-9]|20)(\d)0'?s\b"), _decade),
    (re.compile(r"(?<![\w-])(?:\+?\d{1,3}[ -])?(?:\(?\d{3}\)?[ -])?\d{3}-\d{4}(?![\w-])"), _telephone),
    (re.compile(r"(?<=\d) ?[x×] ?(?=\d)"), " times "),
    (re.compile(r"(?<=\d) ?= ?(?=\d)"), " equals "),
    (
        re.compile(r"(?<=\d) ?[-–] ?(?=\d+ ?(?:%|percent|degrees|people|years|minutes|hours|days|times))"),
        " to ",
    ),
    (re.compile(r"\bv(?=\d+(?:\.\d+)?\b)"), "version "),
    (re.compile(r"°(?=[\s.,!?]|$)"), " degrees"),
)
_QUOTES: Final = str.maketrans({"’": "'", "‘": "'", "«": "“", "»": "”", "–": "—", "\u00a0": " "})


_PLAIN: Final = re.compile(r"[A-Za-z\s.,;:!?'\"()—…“”-]*")
_HALF_DAY: Final = re.compile(r"(?<=[a-z] )([AP])M\b(\.?)")


def _half_day(match: re.Match[str]) -> str:
    return f"{match[1].lower()}.m.{match[2]}"


def _apply(normaliser: Normalizer, text: str) -> str:
    try:
        return str(normaliser.normalize(text))
    except (AssertionError, RuntimeError) as error:
        # The grammar covers no text that holds a character it has never seen. The letters can be said all the
        # same.
        _LOG.warning("numbers are read digit by digit: the text cannot be normalised: %r", error)
        return text


class Speller:
    """Writes out what is not a word. Not for use by several threads at once."""

    def __init__(self) -> None:
        self._english = Normalizer(lang="en", operator="tn")
        self._chinese = Normalizer(lang="zh", operator="tn", traditional_to_simple=True)

    def english(self, text: str) -> str:
        """English text in words."""
        text = (
            "…".join(unicodedata.normalize("NFKC", part) for part in text.split("…"))
            .replace("\u2044", "/")
            .strip()
        )
        for pattern, replacement in _ENGLISH:
            text = pattern.sub(replacement, text)
        if _PLAIN.fullmatch(text):
            return text
        return _HALF_DAY.sub(_half_day, _apply(self._english, text))

    def chinese(self, text: str) -> str:
        """Chinese text in simplified characters."""
        return _apply(self._chinese, text)


def readable(text: str) -> str:
    """Removes what is written but never said: Markdown marks, emoji, control characters, line breaks.

    A line that ends without punctuation ends like a sentence.
    """
    text = re.sub(r"^\s*(?:[-*•#>]+|\d+[.)])\s+", "", text, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"[*`~]+|(?<!\w)_+|_+(?!\w)", "", text).translate(_QUOTES)
    text = re.sub(r"(?<=[\w)\"”'])[ \t]*\n+\s*", ". ", text.strip())
    text = "".join(
        character
        for character in text
        if character.isspace()
        or unicodedata.category(character) not in {"So", "Sk", "Cc", "Cf", "Cs", "Co"}
        or character == "°"
    )
    return re.sub(r"\s+", " ", text).strip()
