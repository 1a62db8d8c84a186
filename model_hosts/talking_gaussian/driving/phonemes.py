"""What the mouth does for each phoneme: articulation targets and how strongly each sound insists on them.

Covers every letter of Kokoro's vocabulary (English and Mandarin IPA). Targets were set by eye on the lip
mesh of the fictional presenter; the strengths follow the dominance model of Cohen and Massaro, "Modeling
coarticulation in synthetic visual speech" (1993).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

CHANNELS: tuple[str, ...] = (
    "jaw",
    "round",
    "funnel",
    "spread",
    "up",
    "low",
    "close",
    "tuck",
    "tongue",
    "rest",
)
"""Articulation channels, 0 to 1: jaw opening, lips pursed, lips protruded and open, corners apart, upper
lip raised, lower lip lowered, lips pressed together, lower lip under the upper teeth, tongue tip raised or
between the teeth, and how much the speaker is silent."""

SILENCE = "_"


@dataclass(frozen=True)
class Gesture:
    """One articulation: where the mouth wants to be and how much it insists.

    Attributes:
        target: Value of every channel, in the order of CHANNELS.
        pull: Channel -> (strength, reach in seconds). `""` is for the channels not named; strength is
            relative to the other sounds around.
        vowel: Stress makes vowels larger.
        hold: Least time in seconds at the full target: a closure must be seen in one frame at 25 a second.
    """

    target: tuple[float, ...]
    pull: dict[str, tuple[float, float]]
    vowel: bool = False
    hold: float = 0.0


def _gesture(pull: dict[str, tuple[float, float]], **target: float) -> Gesture:
    return Gesture(tuple(target.get(name, 0.0) for name in CHANNELS), pull)


def _vowel(**target: float) -> Gesture:
    return replace(_gesture({"": (2.0, 0.055), "rest": (2.0, 0.05)}, **target), vowel=True)


def _consonant(strength: float, reach: float, **target: float) -> Gesture:
    return _gesture({"": (strength, reach), "rest": (2.0, 0.05)}, **target)


def _closing(pull: dict[str, tuple[float, float]], **target: float) -> Gesture:
    return replace(_gesture(pull, **target), hold=0.044)


def _with(gesture: Gesture, **pull: tuple[float, float]) -> Gesture:
    return replace(gesture, pull=gesture.pull | pull)


GESTURES: dict[str, Gesture] = {
    # Vowels.
    "ɑ": _vowel(jaw=0.50, funnel=0.05, spread=0.04, up=0.24, low=0.40),
    "a": _vowel(jaw=0.48, spread=0.13, up=0.24, low=0.42),
    "æ": _vowel(jaw=0.42, spread=0.30, up=0.28, low=0.44),
    "ʌ": _vowel(jaw=0.33, funnel=0.04, spread=0.10, up=0.20, low=0.34),
    "ə": _vowel(jaw=0.19, round=0.02, funnel=0.05, spread=0.10, up=0.13, low=0.24),
    "ɛ": _vowel(jaw=0.31, spread=0.34, up=0.27, low=0.40),
    "e": _vowel(jaw=0.24, spread=0.44, up=0.26, low=0.36),
    "ɪ": _vowel(jaw=0.17, spread=0.38, up=0.22, low=0.32),
    "i": _vowel(jaw=0.11, spread=0.66, up=0.26, low=0.36),
    "ɨ": _vowel(jaw=0.07, spread=0.42, up=0.20, low=0.34),
    "ɯ": _vowel(jaw=0.13, spread=0.22, up=0.14, low=0.24),
    "ɤ": _vowel(jaw=0.24, spread=0.14, up=0.16, low=0.28),
    "ɜ": _with(
        _vowel(jaw=0.22, round=0.24, funnel=0.32, spread=0.04, up=0.12, low=0.22),
        round=(3.0, 0.07),
        funnel=(3.0, 0.07),
    ),
    "ɔ": _with(
        _vowel(jaw=0.39, round=0.34, funnel=0.44, up=0.10, low=0.22), round=(5.0, 0.08), funnel=(5.0, 0.08)
    ),
    "o": _with(
        _vowel(jaw=0.26, round=0.60, funnel=0.48, up=0.05, low=0.12),
        round=(8.0, 0.09),
        funnel=(8.0, 0.09),
        spread=(4.0, 0.07),
    ),
    "ø": _with(
        _vowel(jaw=0.22, round=0.55, funnel=0.45, up=0.06, low=0.14),
        round=(8.0, 0.09),
        funnel=(8.0, 0.09),
        spread=(4.0, 0.07),
    ),
    "ʊ": _with(
        _vowel(jaw=0.17, round=0.52, funnel=0.34, up=0.05, low=0.12), round=(4.0, 0.08), funnel=(4.0, 0.08)
    ),
    "u": _with(
        _vowel(jaw=0.11, round=0.92, funnel=0.32, up=0.02, low=0.06),
        round=(12.0, 0.11),
        funnel=(8.0, 0.10),
        spread=(6.0, 0.07),
    ),
    "y": _with(
        _vowel(jaw=0.09, round=0.88, funnel=0.26, up=0.03, low=0.08),
        round=(12.0, 0.11),
        funnel=(8.0, 0.10),
        spread=(6.0, 0.07),
    ),
    # Lips: they close or tuck whatever the neighbours want.
    "p": _closing(
        {"": (0.35, 0.05), "close": (60.0, 0.021), "jaw": (6.0, 0.042), "rest": (2.0, 0.05)},
        jaw=0.05,
        round=0.04,
        spread=0.02,
        close=1.0,
    ),
    "f": _closing(
        {
            "": (0.5, 0.05),
            "tuck": (40.0, 0.026),
            "close": (30.0, 0.03),
            "up": (6.0, 0.04),
            "low": (14.0, 0.04),
            "jaw": (12.0, 0.045),
            "rest": (2.0, 0.05),
        },
        jaw=0.06,
        spread=0.10,
        up=0.16,
        tuck=1.0,
    ),
    "w": _gesture(
        {
            "": (1.0, 0.06),
            "round": (9.0, 0.085),
            "funnel": (6.0, 0.085),
            "spread": (6.0, 0.07),
            "jaw": (2.0, 0.05),
            "rest": (2.0, 0.05),
        },
        jaw=0.07,
        round=1.0,
        funnel=0.24,
    ),
    # Tongue and teeth.
    "ʃ": _gesture(
        {
            "": (1.2, 0.05),
            "round": (7.0, 0.075),
            "funnel": (12.0, 0.075),
            "spread": (5.0, 0.06),
            "jaw": (5.0, 0.05),
            "rest": (2.0, 0.05),
        },
        jaw=0.07,
        round=0.40,
        funnel=0.80,
        up=0.16,
        low=0.28,
    ),
    "ɕ": _with(
        _consonant(1.2, 0.05, jaw=0.05, funnel=0.12, spread=0.42, up=0.22, low=0.36), jaw=(5.0, 0.045)
    ),
    "s": _with(_consonant(1.1, 0.045, jaw=0.045, spread=0.36, up=0.22, low=0.38), jaw=(7.0, 0.042)),
    "θ": _with(
        _consonant(0.9, 0.045, jaw=0.12, spread=0.15, up=0.18, low=0.30, tongue=1.0),
        tongue=(8.0, 0.045),
        jaw=(4.0, 0.04),
    ),
    "t": _with(
        _consonant(0.6, 0.045, jaw=0.10, spread=0.16, up=0.14, low=0.24, tongue=0.46),
        tongue=(3.0, 0.035),
        jaw=(2.2, 0.035),
    ),
    "l": _with(
        _consonant(0.7, 0.05, jaw=0.20, funnel=0.04, spread=0.14, up=0.18, low=0.28, tongue=0.62),
        tongue=(5.0, 0.045),
    ),
    "ɹ": _with(
        _consonant(0.8, 0.05, jaw=0.12, round=0.45, funnel=0.45, up=0.05, low=0.12, tongue=0.10),
        round=(3.0, 0.07),
        funnel=(3.0, 0.07),
    ),
    "k": _consonant(0.4, 0.045, jaw=0.17, spread=0.12, up=0.14, low=0.22),
    "h": _consonant(0.15, 0.04, jaw=0.18, spread=0.08, up=0.12, low=0.20),
    "j": _with(_consonant(1.2, 0.05, jaw=0.09, spread=0.52, up=0.20, low=0.28), spread=(2.5, 0.06)),
    SILENCE: _gesture({"": (1.3, 0.07), "close": (0.4, 0.04), "rest": (3.0, 0.045)}, spread=0.03, rest=1.0),
}

_SAME: dict[str, str] = {
    # Kokoro's English diphthongs.
    "A": "eɪ",
    "I": "aɪ",
    "O": "oʊ",
    "Q": "əʊ",
    "W": "aʊ",
    "Y": "ɔɪ",
    # Other vowels by their nearest.
    "ᵊ": "ə",
    "ɐ": "ə",
    "ɘ": "ə",
    "ɚ": "ɜ",
    "ɝ": "ɜ",
    "ᵻ": "ɪ",
    "ɒ": "ɔ",
    "œ": "ø",
    # Lips.
    "b": "p",
    "m": "p",
    "ɱ": "f",
    "v": "f",
    "ʋ": "f",
    "ɸ": "f",
    "β": "f",
    "ʍ": "w",
    "ɥ": "w",
    "ɰ": "k",
    # Tongue tip and teeth.
    "d": "t",
    "n": "t",
    "ɾ": "t",
    "ɽ": "t",
    "ɖ": "t",
    "ʈ": "t",
    "ɳ": "t",
    "ɲ": "j",
    "ʎ": "l",
    "ɫ": "l",
    "z": "s",
    "ʦ": "s",
    "ʣ": "s",
    "ð": "θ",
    "ʒ": "ʃ",
    "ʤ": "ʃ",
    "ʧ": "ʃ",
    "ʂ": "ʃ",
    "ʐ": "ʃ",
    "ꭧ": "ʃ",
    "ɻ": "ɹ",
    "r": "ɹ",
    "ʁ": "k",
    "ʨ": "ɕ",
    "ʥ": "ɕ",
    "ʝ": "j",
    "ç": "j",
    "ɟ": "j",
    # Back of the mouth: hardly seen.
    "c": "k",
    "q": "k",
    "x": "k",
    "χ": "k",
    "ɣ": "k",
    "g": "k",
    "ɡ": "k",
    "ŋ": "k",
    "ɴ": "k",
    "ʔ": "h",
    "ɦ": "h",
    # Misaki's abbreviations.
    "T": "t",
    "S": "ʃ",
}

_UNSEEN = frozenset("ˈˌːʰʲ̩̃↓→↗↘ᵝ˥˦˧˨˩0123456789-")
_PAUSES = frozenset(" _.,!?;:—…–\"'“”‘’()《》「」，。！？；：、$^")


def gestures_of(symbol: str) -> tuple[str, ...]:
    """Names of the GESTURES a phoneme symbol is made of, in time order.

    Args:
        symbol: One phoneme as the synthesiser writes it; stress, tone and length marks may be part of it.

    Returns:
        Keys of GESTURES. Empty when the symbol is only a mark or is unknown: the mouth then follows its
        neighbours.
    """
    names: list[str] = []
    for letter in symbol:
        if letter in _UNSEEN:
            continue
        if letter in _PAUSES:
            names.append(SILENCE)
        else:
            names.extend(part for part in _SAME.get(letter, letter) if part in GESTURES)
    if SILENCE in names:
        names = [name for name in names if name != SILENCE] or [SILENCE]
    return tuple(names)
