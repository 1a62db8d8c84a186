"""The first look at a video: where the faces are, a few times a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.preprocess.source import Source, pictures
from model_hosts.talking_gaussian.preprocess.steps import Arrays
from model_hosts.talking_gaussian.preprocess.tools import Watcher

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

_INTERVAL = 0.3
_LONGEST = 1280
_GLANCES = 24
FACES = 3
GLANCE = 256


def survey(source: Source, watcher: Watcher, progress: Callable[[float], None]) -> Arrays:
    """Looks for faces in a picture every 0.3 s.

    Returns:
        `size` (width, height of the upright pictures), `times` [n] of all pictures in seconds, `looked` [m]
        seconds of those that were looked at, `boxes` [m, 3, 4] of their faces in pixels, NaN without a face,
        and some of the pictures, made small: `glances` [g, h, w, 3] and which of those looked at they are,
        `glance_places` [g].
    """
    times: list[float] = []
    looked: list[float] = []
    boxes: list[FloatArray] = []
    size = (0, 0)
    glances: list[ByteArray] = []
    places: list[int] = []
    stride = 1
    for picture in pictures(source):
        times.append(picture.time)
        if looked and picture.time < looked[-1] + _INTERVAL - 1e-6:
            continue
        looked.append(picture.time)
        size = picture.size
        small = picture.rgb(_LONGEST)
        found = np.full((FACES, 4), np.nan, np.float32)
        for place, face in enumerate(watcher.faces(small)[:FACES]):
            found[place] = face.box * (size[0] / small.shape[1])
        if len(boxes) % stride == 0:
            glances.append(_glance(small))
            places.append(len(boxes))
        if len(glances) > _GLANCES:
            glances, places, stride = glances[::2], places[::2], stride * 2
        boxes.append(found)
        progress(min(1.0, picture.time / source.seconds) if source.seconds else 0.0)
    return {
        "size": np.array(size),
        "times": np.array(times),
        "looked": np.array(looked),
        "boxes": np.stack(boxes),
        "glances": np.stack(glances),
        "glance_places": np.array(places),
    }


def _glance(picture: ByteArray) -> ByteArray:
    """The picture about as large as a tile of the contact sheet."""
    step = max(1, max(picture.shape[:2]) // GLANCE)
    height, width = (side // step * step for side in picture.shape[:2])
    parts = picture[:height, :width].reshape(height // step, step, width // step, step, 3)
    mean: ByteArray = np.round(parts.mean((1, 3))).astype(np.uint8)
    return mean
