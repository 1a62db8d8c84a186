"""Stills and contact sheets, for looking at her."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tools.studio.labels import COLOURS
from tools.studio.presenter import Pose, Presenter

STILLS: dict[str, tuple[dict[str, float], tuple[float, float, float], tuple[float, float]]] = {
    "rest": (
        {"mouthSmile": 0.26, "cheekSquint": 0.10, "browInnerUp": 0.06, "eyeWide": 0.05},
        (3, 0, 1),
        (-3, 0),
    ),
    "wide_vowel": (
        {
            "jawOpen": 0.62,
            "mouthUpperUp": 0.26,
            "mouthLowerDown": 0.42,
            "browInnerUp": 0.25,
            "browOuterUp": 0.2,
        },
        (-6, -1, -2),
        (6, -1),
    ),
    "smile": (
        {
            "mouthSmile": 0.65,
            "cheekSquint": 0.5,
            "eyeSquint": 0.15,
            "mouthUpperUp": 0.55,
            "mouthLowerDown": 0.35,
        },
        (7, 2, 3),
        (-7, 2),
    ),
    "bilabial": (
        {"mouthPress": 0.25, "mouthRollLower": 0.2, "mouthRollUpper": 0.12, "mouthSmile": 0.15},
        (0, 0, 0),
        (0, 0),
    ),
    "round": ({"mouthPucker": 0.9, "mouthFunnel": 0.3, "jawOpen": 0.10}, (4, 1, 0), (-4, 0)),
    "tongue": (
        {"tongueOut": 0.5, "jawOpen": 0.14, "mouthUpperUp": 0.15, "mouthLowerDown": 0.25},
        (-3, 0, 0),
        (3, 0),
    ),
    "ee": (
        {
            "mouthSmile": 0.35,
            "mouthStretch": 0.3,
            "mouthLowerDown": 0.35,
            "mouthUpperUp": 0.22,
            "jawOpen": 0.08,
        },
        (0, -3, 0),
        (0, -3),
    ),
    "blink": ({"eyeBlink": 1.0, "mouthSmile": 0.2}, (-8, 3, -3), (0, 0)),
}
"""Face units, head (yaw, pitch, roll) and gaze (yaw, pitch) in degrees."""


def still(presenter: Presenter, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """One of the STILLS as a picture."""
    units, head, gaze = STILLS[name]
    return presenter.frame(Pose(presenter.body.units_from(units), np.array(head), np.array(gaze)))


def write_stills(presenter: Presenter, out: Path) -> list[Path]:
    """Write every still as out/NAME.png and its label map in colours as out/NAME_labels.png."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in STILLS:
        path = out / f"{name}.png"
        Image.fromarray(still(presenter, name)).save(path)
        label_map, _ = presenter.labels()
        Image.fromarray(COLOURS[label_map]).save(out / f"{name}_labels.png")
        paths.append(path)
    return paths


def write_sheet(presenter: Presenter, out: Path) -> Path:
    """Write all stills side by side as out/sheet.png."""
    out.mkdir(parents=True, exist_ok=True)
    pictures = [still(presenter, name) for name in STILLS]
    half = len(pictures) // 2
    rows = [np.concatenate(pictures[:half], 1), np.concatenate(pictures[half : 2 * half], 1)]
    path = out / "sheet.png"
    Image.fromarray(np.concatenate(rows, 0)).save(path)
    return path
