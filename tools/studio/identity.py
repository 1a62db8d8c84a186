"""Who she is: the mixture of identity targets of the presenter "Mira", a person who does not exist."""

from __future__ import annotations

Recipe = tuple[tuple[str, float], ...]


def _both(name: str, weight: float, other: float | None = None) -> Recipe:
    """A target of both sides; `name` has {} for the side. A slight difference keeps the face alive."""
    return ((name.format("l"), weight), (name.format("r"), weight if other is None else other))


MIRA: Recipe = (
    ("macrodetails/caucasian-female-young", 0.58),
    ("macrodetails/asian-female-young", 0.24),
    ("macrodetails/african-female-young", 0.18),
    ("macrodetails/universal-female-young-averagemuscle-averageweight", 1.0),
    ("macrodetails/proportions/female-young-averagemuscle-averageweight-idealproportions", 0.5),
    ("head/head-oval", 0.55),
    ("head/head-scale-horiz-decr", 0.22),
    ("head/head-scale-vert-decr", 0.12),
    ("neck/neck-scale-horiz-decr", 0.45),
    ("neck/neck-scale-depth-decr", 0.2),
    *_both("eyes/{}-eye-scale-incr", 0.80),
    *_both("eyes/{}-eye-height2-incr", 0.32, 0.30),
    *_both("eyes/{}-eye-corner2-up", 0.20, 0.18),
    *_both("eyes/{}-eye-bag-decr", 0.6),
    ("mouth/mouth-angles-up", 0.58),
    ("mouth/mouth-lowerlip-volume-incr", 0.28),
    ("mouth/mouth-upperlip-volume-incr", 0.20),
    ("mouth/mouth-scale-horiz-incr", 0.10),
    ("mouth/mouth-cupidsbow-incr", 0.15),
    ("nose/nose-scale-horiz-decr", 0.24),
    ("nose/nose-point-up", 0.14),
    ("nose/nose-hump-decr", 0.2),
    ("nose/nose-volume-decr", 0.14),
    *_both("cheek/{}-cheek-bones-incr", 0.22, 0.20),
    *_both("cheek/{}-cheek-volume-incr", 0.10),
    ("chin/chin-width-decr", 0.42),
    ("chin/chin-height-decr", 0.26),
    ("eyebrows/eyebrows-trans-down", 0.25),
    *_both("ears/{}-ear-scale-decr", 0.7),
    *_both("ears/{}-ear-wing-decr", 1.0),
    ("asym/asym-brown-1-l", 0.05),
    ("asym/asym-nose-1-l", 0.05),
)
