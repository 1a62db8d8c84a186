"""Label maps: which pixel is face, hair, inside of the mouth, neck, clothes or background."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, binary_erosion, maximum_filter, minimum_filter, uniform_filter
from scipy.ndimage import label as label_regions

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
_SURELY_SKIN = 5.0
_ENOUGH = 200
_HAIR_WIDTH, _HANGS, _THICK = 0.55, 1.6, 9
"""How far hair may stand out beside the face and hang down below the ears, in face heights; and how thick it
must be to hang down, in pixels of 512."""
_THROAT = 0.3
_NECK_REACH = (0.75, 0.6)
"""How far from the chin the neck may be, sideways and down, in face heights."""


@dataclass(frozen=True)
class Materials:
    """Colours of the person; hair and clothes are None when they are not to be seen."""

    skin: ColourModel
    hair: ColourModel | None
    clothes: ColourModel | None

    @property
    def hairy(self) -> Mask:
        """Colours that are rather hair than anything else, by table index."""
        if self.hair is None:
            return np.zeros(len(self.skin.distance), bool)
        likely: Mask = self.hair.unlikelihood < self.skin.unlikelihood
        if self.clothes is not None:
            likely &= self.hair.unlikelihood < self.clothes.unlikelihood
        return likely


def learn_materials(samples: Iterable[tuple[ByteArray, ByteArray, FloatArray]]) -> Materials:
    """Learns the colours from some frames.

    Args:
        samples: Picture [h, w, 3], person [h, w] 0..255 and landmarks [478, 3] of each.
    """
    skin, hair, clothes = [], [], []
    for picture, person, points in samples:
        size = person.shape
        scale = size[1] / 512
        oval = face.fill(points[list(face.OVAL), :2], size)
        skin.append(picture[binary_erosion(oval, iterations=max(1, round(7 * scale)))][::7])
        above = (person >= _SURELY) & ~oval
        above[max(0, int(points[face.FOREHEAD, 1] - 25 * scale)) :] = False
        hair.append(picture[binary_erosion(above, iterations=max(1, round(4 * scale)))][::7])
        below = person >= _SURELY
        below[: int(points[face.CHIN_TIP, 1] + 0.5 * max(0, size[0] - points[face.CHIN_TIP, 1]))] = False
        clothes.append(picture[below][::7])
    skin_model = fit_colours(np.concatenate(skin))
    worn, found = np.concatenate(clothes), np.concatenate(hair)
    worn = worn[skin_model.distance[table_index(worn)] > _SKIN_LIKE]
    return Materials(
        skin_model,
        fit_colours(found) if len(found) > _ENOUGH else None,
        fit_colours(worn) if len(worn) > _ENOUGH else None,
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
    inside = person >= _PERSON
    colour = table_index(picture)
    head = inside & _above_jaw(points, size)
    hairy = uniform_filter(materials.hairy[colour].astype(np.float32), 5) > 0.5
    outline = points[list(face.OVAL), :2]
    oval, inner = face.fill(outline, size), face.fill(_shrunk(outline, 0.97), size)
    hair = head & hairy & ~inner
    hair[_row(max(points[face.RIGHT_LOBE, 1], points[face.LEFT_LOBE, 1]), size) :] = False
    if materials.hair is not None:
        # Above the brows what is not surely skin is hair, also where it shines or is seen against the light.
        brows = _row(min(points[face.RIGHT_BROW, 1], points[face.LEFT_BROW, 1]), size)
        skin = materials.skin.distance[colour[:brows]] < _SURELY_SKIN
        hair[:brows] |= (head & ~oval)[:brows] & ~skin
    out = np.full(size, BACKGROUND, np.uint8)
    out[inside] = CLOTHES
    out[_neck(inside & ~head, colour, points, materials)] = NECK
    out[head] = SKIN
    out[hair | _hanging(hair, inside & hairy & ~oval, points)] = HAIR
    out[_mouth(points, size) & inside] = MOUTH
    return out


def _shrunk(outline: FloatArray, share: float) -> FloatArray:
    middle = outline.mean(0)
    smaller: FloatArray = middle + share * (outline - middle)
    return smaller


def _row(y: float, size: tuple[int, int]) -> int:
    return int(np.clip(round(y), 0, size[0]))


def _opened(mask: Mask, side: int) -> Mask:
    """What of a mask a square of this side can cover from inside."""
    opened: Mask = maximum_filter(minimum_filter(mask.view(np.uint8), side), side).view(bool)
    return opened


def _face_height(points: FloatArray) -> float:
    return float(np.linalg.norm(points[face.FOREHEAD, :2] - points[face.CHIN_TIP, :2]))


def _above_jaw(points: FloatArray, size: tuple[int, int]) -> Mask:
    """All that is above the line along the jaw and, beside it, above the ear lobes."""
    jaw = points[list(face.JAW), :2]
    margin = _HAIR_WIDTH * _face_height(points)
    left, right = jaw[0, 0] - margin, jaw[-1, 0] + margin
    outline = np.concatenate(
        [
            [[left, 0], [left, points[face.RIGHT_LOBE, 1]]],
            jaw[2:-2],
            [[right, points[face.LEFT_LOBE, 1]], [right, 0]],
        ]
    )
    return face.fill(outline.astype(np.float32), size)


def _hanging(hair: Mask, candidates: Mask, points: FloatArray) -> Mask:
    """Hair below the ears: what is connected with thick hair above them.

    Thin dark lines, as the shadow beside a jaw, do not lead down.
    """
    height, size = _face_height(points), hair.shape
    lobe = float(min(points[face.RIGHT_LOBE, 1], points[face.LEFT_LOBE, 1]))
    above = slice(_row(lobe - 0.15 * height, size), _row(lobe, size))
    part = slice(above.start, _row(lobe + _HANGS * height, size))
    found = np.zeros(size, bool)
    if not hair[above].any():
        return found
    regions, _ = label_regions(_opened(candidates[part], max(3, round(_THICK * size[1] / 512))))
    roots = np.unique(regions[: above.stop - above.start][hair[above]])
    found[part] = np.isin(regions, roots[roots > 0])
    return found


def _neck(below: Mask, colour: npt.NDArray[np.uint16], points: FloatArray, materials: Materials) -> Mask:
    """Skin below the jaw that is connected with the middle of the throat."""
    x, y = points[face.CHIN_TIP, :2]
    height, size = _face_height(points), below.shape
    part = (
        slice(_row(y - 0.5 * height, size), _row(y + _NECK_REACH[1] * height, size)),
        slice(*np.clip([int(x - _NECK_REACH[0] * height), int(x + _NECK_REACH[0] * height)], 0, size[1])),
    )
    skin = below[part] & (materials.skin.distance[colour[part]] < _SKIN_LIKE)
    regions, _ = label_regions(_opened(skin, max(3, round(5 * size[1] / 512))))
    throat = np.abs(np.arange(part[1].start, part[1].stop) - x) < _THROAT * height
    roots = np.unique(regions[:, throat])
    found = np.zeros(size, bool)
    found[part] = np.isin(regions, roots[roots > 0])
    return found


def _mouth(points: FloatArray, size: tuple[int, int]) -> Mask:
    """The opening between the lips; nothing when they are closed."""
    opening = points[list(face.INNER_LIPS), :2]
    gap = float(np.linalg.norm(points[face.UPPER_LIP, :2] - points[face.LOWER_LIP, :2]))
    mask = face.fill(opening, size)
    return binary_dilation(mask) if gap > 2 * size[1] / 512 else mask
