"""Cuts a text into pieces fit to be spoken while it is still being written.

The result does not depend on how the text arrives: character by character or all at once, the pieces are the
same, and joined they are the text. English and Chinese, also mixed in one sentence. A piece ends

* at a sentence end, once it is long enough not to sound chopped (a short "Yes." joins what follows);
* at a clause mark, when the piece is the first one and long enough to be spoken alone, so that speech starts
  early, or when it has grown so long that the voice would need a breath anyway;
* at a space or between two Han characters, when it runs on and on without any mark.

Length is counted in units of speaking time: a Han character is 1, a Latin word 1.5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_SENTENCE_MARKS: Final = frozenset("。！？!?…｡")
_SENTENCE_RUN: Final = _SENTENCE_MARKS | frozenset("～~")
_CLAUSE_MARKS: Final = frozenset("，、；：,;:—")
_CLOSERS: Final = frozenset("”’」』）)】》\"'")
_BLANKS: Final = frozenset(" \t")
_TITLES: Final = frozenset({"mr", "mrs", "ms", "dr", "prof", "sr", "jr", "st", "no", "fig", "dept"})
_SHORT: Final = frozenset(
    {"vs", "etc", "e.g", "i.e", "inc", "ltd", "co", "u.s", "u.k", "a.m", "p.m", "approx"}
)
_ABBREVIATIONS: Final = _TITLES | _SHORT
_HAN: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_WORD: Final = re.compile(r"[A-Za-z0-9]+")
_LETTERS_BEFORE_DOT: Final = re.compile(r"[A-Za-z.]*\Z")
_LIST_NUMBER: Final = re.compile(r"(?:\A|\n)\s*\d+\Z")


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the text.

    Attributes:
        text: The piece as it was written, blanks after it included.
        complete: Whether a sentence ends with it.
    """

    text: str
    complete: bool


def spoken_units(text: str) -> float:
    """Length of a text in units of speaking time: 1 a Han character, 1.5 a Latin word or number."""
    return len(_HAN.findall(text)) + 1.5 * len(_WORD.findall(text))


class Segmenter:
    """Takes a text in any pieces and gives segments as soon as they are certain.

    Args:
        first_sentence: Units that the first sentence, or the rest of one after a clause, must have.
        first_clause: Units the first clause must have to be given alone.
        sentence: Units later sentences must have.
        long_clause: Units from which a later clause is given alone.
        longest: Units from which a piece ends at the next space or Han character.
    """

    def __init__(
        self,
        *,
        first_sentence: float = 4,
        first_clause: float = 10,
        sentence: float = 6,
        long_clause: float = 40,
        longest: float = 80,
    ) -> None:
        self._first_sentence = first_sentence
        self._first_clause = first_clause
        self._sentence = sentence
        self._long_clause = long_clause
        self._longest = longest
        self._buffer = ""
        self._given = 0
        self._in_sentence = False

    def push(self, text: str) -> list[Segment]:
        """Takes more of the text; returns the segments that are certain now."""
        segments = []
        # One character at a time, so that a decision never sees more than it would in any other chunking.
        for character in text:
            self._buffer += character
            if cut := self._find_cut(final=False):
                segments.append(self._take(*cut))
        return segments

    def close(self) -> list[Segment]:
        """Ends the text; returns the segments that are left."""
        segments = []
        while cut := self._find_cut(final=True):
            segments.append(self._take(*cut))
        if self._buffer:
            segments.append(self._take(len(self._buffer), _ends_sentence(self._buffer)))
        return segments

    def _take(self, end: int, complete: bool) -> Segment:
        text, self._buffer = self._buffer[:end], self._buffer[end:]
        self._given += 1
        self._in_sentence = not complete
        return Segment(text, complete)

    def _find_cut(self, *, final: bool) -> tuple[int, bool] | None:
        """Where the first segment ends and whether a sentence does; None while that is not certain."""
        buffer = self._buffer
        position = 0
        while position < len(buffer):
            mark = _mark_at(buffer, position, final=final)
            if mark is _UNCERTAIN:
                return None
            if mark is None:
                position += 1
                if self._runs_on(position):
                    return position, False
                continue
            end, is_sentence = mark
            closed = _skip(buffer, end, _CLOSERS)
            # Closers, further marks or digits may still follow.
            if closed == len(buffer) and not final and buffer[position] != "\n":
                return None
            end = _skip(buffer, closed, _BLANKS)
            units = spoken_units(buffer[:end])
            if is_sentence and units >= self._shortest_sentence():
                return end, True
            if not is_sentence and units >= (self._long_clause if self._given else self._first_clause):
                return end, False
            position = end
        return None

    def _shortest_sentence(self) -> float:
        # The end of a sentence whose beginning was given before may be as short as a first sentence.
        return self._sentence if self._given and not self._in_sentence else self._first_sentence

    def _runs_on(self, end: int) -> bool:
        last = self._buffer[end - 1]
        return (last in _BLANKS or bool(_HAN.match(last))) and spoken_units(
            self._buffer[:end]
        ) >= self._longest


_UNCERTAIN: Final = (-1, False)


def _mark_at(text: str, position: int, *, final: bool) -> tuple[int, bool] | None:
    """The mark at a position.

    Returns:
        Its end and whether it ends a sentence; None when there is none; `_UNCERTAIN` when the next character
        decides.
    """
    character = text[position]
    end = position + 1
    after = text[end : end + 1]
    decides_later = not after and not final
    mark: tuple[int, bool] | None = None
    if character == "\n":
        mark = end, True
    elif character == ".":
        if decides_later:
            mark = _UNCERTAIN
        elif _is_full_stop(text, position, after):
            mark = end, True
    elif character in _SENTENCE_MARKS:
        run = _skip(text, end, _SENTENCE_RUN)
        after = text[run : run + 1]
        # The ? of a web address is followed by its query.
        inside_word = run == end and character in "!?" and after and not _may_follow_sentence(after)
        mark = None if inside_word else (run, True)
    elif character in ",:" and text[position - 1 : position].isdigit():
        # 1,000 and 12:30 are numbers.
        if decides_later:
            mark = _UNCERTAIN
        elif not after.isdigit():
            mark = end, False
    elif character in _CLAUSE_MARKS and not (character == ":" and after == "/"):
        mark = end, False
    return mark


def _is_full_stop(text: str, position: int, after: str) -> bool:
    """Whether a dot ends a sentence: not that of a decimal, an abbreviation or a list number."""
    if after and not (after in " \t\n" or after in _CLOSERS or _HAN.match(after)):
        return False
    match = _LETTERS_BEFORE_DOT.search(text[:position])
    word = match.group().lower() if match else ""
    initial = len(word) == 1 and word != "i"
    return not (word in _ABBREVIATIONS or initial or _LIST_NUMBER.search(text[:position]))


def _may_follow_sentence(character: str) -> bool:
    return character in " \t\n" or character in _CLOSERS or bool(_HAN.match(character))


def _skip(text: str, position: int, characters: frozenset[str]) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position


def _ends_sentence(text: str) -> bool:
    """Whether a text that nothing follows ends with a sentence."""
    stripped = text.rstrip().rstrip("".join(_CLOSERS))
    return stripped.endswith((*_SENTENCE_RUN, "."))
