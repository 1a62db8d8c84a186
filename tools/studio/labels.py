"""Classes of the label map and its storage."""

from __future__ import annotations

import io
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tools.studio.mesh import Array


class Label(IntEnum):
    """The class of a pixel."""

    BACKGROUND = 0
    SKIN = 1
    """Head: face, lips, eyes, brows, lashes, ears."""
    HAIR = 2
    MOUTH = 3
    """Inside of the mouth: teeth, tongue, cavity."""
    NECK = 4
    CLOTHES = 5


COLOURS = np.array(
    [[0, 0, 0], [230, 180, 150], [90, 50, 20], [200, 30, 60], [120, 200, 120], [40, 90, 200]], np.uint8
)
"""A colour for each label, for sheets."""


def pack(maps: list[bytes]) -> dict[str, npt.NDArray[Any]]:
    """PNG-encoded label maps as the arrays of labels.npz: `data` bytes and `offset` [T + 1]."""
    return {
        "data": np.concatenate([np.frombuffer(m, np.uint8) for m in maps]),
        "offset": np.concatenate([[0], np.cumsum([len(m) for m in maps])]).astype(np.int64),
        "classes": np.array([label.name.lower() for label in Label]),
    }


def encode(label_map: Array) -> bytes:
    """One label map [h, w] uint8 as an 8-bit grey PNG."""
    out = io.BytesIO()
    Image.fromarray(label_map).save(out, "png", compress_level=6)
    return out.getvalue()


def decode(data: Array, offset: Array, frame: int) -> npt.NDArray[np.uint8]:
    """The label map of one frame out of the arrays of labels.npz."""
    raw = data[offset[frame] : offset[frame + 1]].tobytes()
    return np.array(Image.open(io.BytesIO(raw)))
