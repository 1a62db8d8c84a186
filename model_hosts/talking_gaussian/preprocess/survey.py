"""The first look at a video: where the faces are, a few times a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from model_hosts.talking_gaussian.preprocess.source import Source, pictures
from model_hosts.talking_gaussian.preprocess.steps import Arrays
from model_hosts.talking_gaussian.preprocess.tools import Watcher

_INTERVAL = 0.3
_LONGEST = 1280
FACES = 3


def survey(source: Source, watcher: Watcher, progress: Callable[[float], None]) -> Arrays:
    """Looks for faces in a picture every 0.3 s.

    Returns:
        `size` (width, height of the upright pictures), `times` [n] of all pictures in seconds, `looked` [m]
        seconds of those that were looked at, and `boxes` [m, 3, 4] of their faces in pixels, NaN without a face.
    """
    times: list[float] = []
    looked: list[float] = []
    boxes = []
    size = (0, 0)
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
        boxes.append(found)
        progress(min(1.0, picture.time / source.seconds) if source.seconds else 0.0)
    return {
        "size": np.array(size),
        "times": np.array(times),
        "looked": np.array(looked),
        "boxes": np.stack(boxes),
    }
