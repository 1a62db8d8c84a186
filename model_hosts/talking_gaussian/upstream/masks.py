"""The original's pictures of regions, made of our label maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from model_hosts.talking_gaussian.preprocess.dataset import BACKGROUND, CLOTHES, HAIR, MOUTH, NECK, SKIN

ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

PALETTE: dict[int, tuple[int, int, int]] = {
    BACKGROUND: (255, 255, 255),
    SKIN: (0, 0, 255),
    HAIR: (0, 0, 0),
    MOUTH: (100, 100, 100),
    NECK: (0, 255, 0),
    CLOTHES: (255, 0, 0),
}
"""Colours of a parsing map, RGB."""
_REACH = 48
"""Rows by which neck and torso go on behind the head."""
_OVERLAP = 4
_DARKENING = 0.98
_SOFTNESS = 1.4
_TEETH_LIGHT = 0.75
_TEETH_COLOUR = 0.35


def parsing(label: ByteArray, teeth: BoolArray) -> ByteArray:
    """The parsing map uint8 [H, W, 3] of a label map.

    Teeth carry the colour of the face: the original takes them out of the face and adds them to the mouth by
    their own mask.
    """
    table = np.array([PALETTE[value] for value in range(len(PALETTE))], np.uint8)
    return table[np.where(teeth, SKIN, label)]


def teeth_mask(frame: ByteArray, label: ByteArray) -> BoolArray:
    """The bright, colourless pixels inside the mouth, bool [H, W]."""
    skin = frame[label == SKIN]
    teeth: BoolArray = label == MOUTH
    if not teeth.any() or not len(skin):
        return np.zeros(label.shape, bool)
    inside = frame[teeth].astype(np.float32)
    light = inside.max(-1)
    colour = (light - inside.min(-1)) / np.maximum(light, 1)
    teeth[teeth] = (light > _TEETH_LIGHT * np.median(skin.max(-1))) & (colour < _TEETH_COLOUR)
    return teeth


def torso_picture(picture: ByteArray, label: ByteArray) -> ByteArray:
    """Neck and clothes with alpha, uint8 [H, W, 4].

    The head will move over them, so each column that ends under the head goes on upwards with its top colour,
    a little darker row by row.

    Args:
        picture: The frame, uint8 [H, W, 3].
        label: Its label map.
    """
    torso = label >= NECK
    colours = picture.astype(np.float32)
    alpha = torso.copy()
    for column in np.nonzero(torso.any(0))[0]:
        rows = np.nonzero(torso[:, column])[0]
        top = int(rows[0])
        if top <= 1 or label[top - 1, column] not in (SKIN, HAIR, MOUTH):
            continue
        # The very edge is a mixture with the head; the colour is taken a little below.
        source = min(top + _OVERLAP, int(rows[-1]))
        grown = np.arange(max(0, top - _REACH), source)
        grown = grown[label[grown, column] != BACKGROUND]
        darker = _DARKENING ** ((source - grown) / _OVERLAP)
        colours[grown, column] = colours[source, column] * darker[:, None]
        alpha[grown, column] = True
    added = alpha & ~torso
    colours[~alpha] = 0
    # Streaks are softened among themselves; what lies beside them stays out.
    weight = np.maximum(ndimage.gaussian_filter(alpha.astype(np.float32), _SOFTNESS), 1e-3)[..., None]
    soft = ndimage.gaussian_filter(colours, (_SOFTNESS, _SOFTNESS, 0)) / weight
    colours[added] = soft[added]
    return np.dstack([np.round(colours), alpha * 255.0]).astype(np.uint8)
