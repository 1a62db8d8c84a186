"""Label maps: which pixel is face, hair, inside of the mouth, neck, clothes or background."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, binary_erosion, binary_opening, uniform_filter

from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.colours import ColourModel, fit_colours, table_index
from model_hosts.talking_gaussian.preprocess.dataset import BACKGROUND, CLOTHES, HAIR, MOUTH, NECK, SKIN

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_PERSON = 128
_SURELY = 250
_SKIN_LIKE = 14.0
"""Squared Mahalanobis distance below which a colour may be skin."""
_ENOUGH = 200
_NECK_REACH = (0.75, 0.35)
"""How far from the chin the neck may be, sideways and down, in face heights."""


@dataclass(frozen=True)
class Materials:
    """Colours of the person; hair is None when none is seen above the face."""

    skin: ColourModel
    hair: ColourModel | None


def learn_materials(samples: Iterable[tuple[ByteArray, ByteArray, FloatArray]]) -> Materials:
    """Learns the colours from some frames.

    Args:
        samples: Picture [h, w, 3], person [h, w] 0..255 and landmarks [478, 3] of each.
    """
    skin, hair = [], []
    for picture, person, points in samples:
        size = person.shape
        scale = size[1] / 512
        oval = face.fill(points[list(face.OVAL), :2], size)
        skin.append(picture[binary_erosion(oval, iterations=max(1, round(7 * scale)))][::7])
        above = (person >= _SURELY) & ~oval
        above[max(0, int(points[face.FOREHEAD, 1] - 25 * scale)) :] = False
        hair.append(picture[binary_erosion(above, iterations=max(1, round(4 * scale)))][::7])
    found = np.concatenate(hair)
    return Materials(
        fit_colours(np.concatenate(skin)), fit_colours(found) if len(found) > _ENOUGH else None
    )


def label(picture: ByteArray, person: ByteArray, points: FloatArray, materials: Materials) -> ByteArray:
    """The label map of a frame, uint8 [h, w].

    Args:
        picture: uint8 [h, w, 3].
        person: How much each pixel belongs to the person, uint8 [h, w].
        points: Landmarks, float32 [478, 3].
        materials: Colours of the person.
    """
    size = person.shape
    scale = size[1] / 512
    rows, columns = np.mgrid[: size[0], : size[1]]
    inside = person >= _PERSON
    colour = table_index(picture)
    head = inside & _above_jaw(points, size)
    oval = face.fill(points[list(face.OVAL), :2], size)
    out = np.full(size, BACKGROUND, np.uint8)
    out[inside] = CLOTHES
    out[_neck(inside & ~head, colour, points, materials, rows, columns)] = NECK
    out[head] = SKIN
    if materials.hair is not None:
        hairy = (materials.skin.unlikelihood - materials.hair.unlikelihood)[colour] > 0
        hairy = uniform_filter(hairy.astype(np.float32), 5) > 0.5
        hair = head & hairy & ~binary_erosion(oval, iterations=max(1, round(2 * scale)))
        hair |= head & hairy & (rows < points[face.FOREHEAD, 1] - 8 * scale)
        hair &= rows < max(points[face.RIGHT_LOBE, 1], points[face.LEFT_LOBE, 1])
        out[hair] = HAIR
    out[_mouth(points, size) & inside] = MOUTH
    return out


def _above_jaw(points: FloatArray, size: tuple[int, int]) -> Mask:
    """All that is above the line along the jaw and, beside it, above the ear lobes."""
    jaw = points[list(face.JAW), :2]
    margin = 60 * size[1] / 512
    left, right = jaw[0, 0] - margin, jaw[-1, 0] + margin
    outline = np.concatenate(
        [
            [[left, 0], [left, points[face.RIGHT_LOBE, 1]]],
            jaw[2:-2],
            [[right, points[face.LEFT_LOBE, 1]], [right, 0]],
        ]
    )
    return face.fill(outline.astype(np.float32), size)


def _neck(
    below: Mask,
    colour: npt.NDArray[np.uint16],
    points: FloatArray,
    materials: Materials,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> Mask:
    chin = points[face.CHIN_TIP, :2]
    height = float(np.linalg.norm(points[face.FOREHEAD, :2] - chin))
    neck = below & (materials.skin.distance[colour] < _SKIN_LIKE)
    neck &= (np.abs(columns - chin[0]) < _NECK_REACH[0] * height) & (rows < chin[1] + _NECK_REACH[1] * height)
    opened: Mask = binary_opening(neck, np.ones((5, 5)))
    return opened


def _mouth(points: FloatArray, size: tuple[int, int]) -> Mask:
    """The opening between the lips; nothing when they are closed."""
    opening = points[list(face.INNER_LIPS), :2]
    gap = float(np.linalg.norm(points[face.UPPER_LIP, :2] - points[face.LOWER_LIP, :2]))
    mask = face.fill(opening, size)
    return binary_dilation(mask) if gap > 2 * size[1] / 512 else mask
