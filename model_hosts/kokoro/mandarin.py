"""Mandarin to the symbols of Kokoro: words, pinyin, IPA, tones as arrows.

Source: what misaki.zh (hexgrad, Apache-2.0) does for Kokoro v1.0, on the same libraries and with the same
result for every syllable. misaki itself does not install on Python 3.13.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Final

import jieba
from pinyin_to_ipa import pinyin_to_ipa
from pypinyin import Style, lazy_pinyin

_HAN: Final = re.compile(r"[\u4e00-\u9fff]+")
_PUNCTUATION: Final = {
    **dict.fromkeys("、，", ", "),
    **dict.fromkeys("。．", ". "),
    **dict.fromkeys("«《「【", " “"),
    **dict.fromkeys("»》」】", "” "),
    "！": "! ",
    "：": ": ",
    "；": "; ",
    "？": "? ",
    "（": " (",
    "）": ") ",
}
_SYMBOLS: Final = (
    # Affricates are one symbol each.
    ("ʈʂ", "ꭧ"),
    ("tɕ", "ʨ"),
    ("ts", "ʦ"),
    # The third, second, fourth and first tone.
    ("˧˩˧", "↓"),
    ("˧˥", "↗"),
    ("˥˩", "↘"),
    ("˥", "→"),
    # The vowel of zi and zhi.
    ("ɻ̩", "ɨ"),
    ("ɹ̩", "ɨ"),
    ("\u032f", ""),  # Not a syllable of its own; the model does not know the sign.
)


class Mandarin:
    """Grapheme to phoneme for Chinese characters."""

    def __init__(self) -> None:
        jieba.setLogLevel(logging.WARNING)
        # It keeps its parsed dictionary in a file; by default in a directory that everybody can write to.
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        cache.mkdir(parents=True, exist_ok=True)
        jieba.dt.tmp_dir = str(cache)
        jieba.initialize()

    def __call__(self, text: str) -> str:
        """The symbols of a text in simplified characters; what is not Chinese stays as it is."""
        for chinese, western in _PUNCTUATION.items():
            text = text.replace(chinese, western)
        return _HAN.sub(lambda match: " ".join(map(_word, jieba.lcut(match[0]))), text.strip())


def _word(word: str) -> str:
    # Rare characters that no dictionary knows are left out.
    syllables = lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True, errors="ignore")
    return "".join(syllable_symbols(syllable) for syllable in syllables)


def syllable_symbols(pinyin: str) -> str:
    """The symbols of a syllable in pinyin with the number of its tone, such as `hao3`."""
    symbols = "".join(pinyin_to_ipa(pinyin)[0])
    for ipa, symbol in _SYMBOLS:
        symbols = symbols.replace(ipa, symbol)
    return symbols
