"""A look at every frame of the clip: landmarks, face units, light, sharpness, and what covers the face."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, uniform_filter

from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.flow import grey
from model_hosts.talking_gaussian.preprocess.steps import Arrays
from model_hosts.talking_gaussian.preprocess.tools import LANDMARKS, Watcher

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

THUMB = 32
_CELLS = 4
_FACE = 250.0
"""Height of a face, in pixels, whose finest detail is one pixel large."""


def watch(frames: Iterable[ByteArray], watcher: Watcher, progress: Callable[[int], None]) -> Arrays:
    """Looks at each frame alone; smoothing over time would take the lips' quick movements away.

    Returns:
        `found` [T]; `points` [T, 478, 3], `units` [T, 52] and `poses` [T, 4, 4] as of `Face`, of frames
        without a face those between their neighbours'; `light` [T], the middle luma of the face, 0..255;
        `sharpness` [T]; `colours` uint8 [T, 468, 3], what is seen at the landmarks; `thumbs` uint8
        [T, 32, 32, 3].
    """
    found, points, units, poses = [], [], [], []
    light, sharpness, colours, thumbs = [], [], [], []
    for index, picture in enumerate(frames):
        faces = watcher.faces(picture)
        found.append(bool(faces))
        small = _small(picture)
        thumbs.append(small.reshape(THUMB, _CELLS, THUMB, _CELLS, 3).mean((1, 3)).astype(np.uint8))
        if faces:
            points.append(faces[0].points)
            units.append(faces[0].units)
            poses.append(faces[0].pose)
        else:
            points.append(np.full((LANDMARKS, 3), np.nan, np.float32))
            units.append(np.full(52, np.nan, np.float32))
            poses.append(np.full((4, 4), np.nan, np.float32))
        bright, sharp = _quality(picture, points[-1]) if faces else (0.0, 0.0)
        light.append(bright)
        sharpness.append(sharp)
        places = points[-1][: face.MESH, :2] * np.float32(len(small) / len(picture))
        colours.append(_at(small, places) if faces else np.zeros((face.MESH, 3), np.uint8))
        progress(index + 1)
    seen = np.array(found)
    return {
        "found": seen,
        "points": _bridged(np.stack(points), seen),
        "units": _bridged(np.stack(units), seen),
        "poses": _bridged(np.stack(poses), seen),
        "light": np.array(light, np.float32),
        "sharpness": np.array(sharpness, np.float32),
        "colours": np.stack(colours),
        "thumbs": np.stack(thumbs),
    }


def _small(picture: ByteArray) -> ByteArray:
    """The picture in 128x128, each pixel the mean of its part."""
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    side = THUMB * _CELLS
    return cast(ByteArray, frame.reformat(side, side, "rgb24", interpolation="AREA").to_ndarray())


def _quality(picture: ByteArray, points: FloatArray) -> tuple[float, float]:
    """Middle luma of the face, and its fine detail as a share of its coarser detail."""
    low = np.clip(points[:, :2].min(0).astype(int), 0, None)
    high = points[:, :2].max(0).astype(int)
    region = grey(picture[low[1] : high[1], low[0] : high[0]])
    if min(region.shape, default=0) < 16:
        return 0.0, 0.0
    scale = region.shape[0] / _FACE
    # Two bands an octave wide, two octaves apart; finer ones would hear the noise of a codec.
    levels = [gaussian_filter(region, sigma * scale) for sigma in (1, 2, 4, 8)]
    fine, coarse = np.abs(levels[0] - levels[1]).mean(), np.abs(levels[2] - levels[3]).mean()
    return float(np.median(region)), float(fine / (coarse + 1e-3))


def _at(picture: ByteArray, places: FloatArray) -> ByteArray:
    """Colours of a picture at places [n, 2], uint8 [n, 3]."""
    column, row = places.astype(int).clip(0, len(picture) - 1).T
    colours: ByteArray = picture[row, column]
    return colours


def _bridged(values: FloatArray, found: npt.NDArray[np.bool_]) -> FloatArray:
    """The same with values between the neighbours' where there are none; all zero when there never are."""
    if found.all():
        return values
    if not found.any():
        return np.zeros_like(values)
    times, flat = np.arange(len(found)), values.reshape(len(found), -1)
    out = np.stack([np.interp(times, times[found], column[found]) for column in flat.T], 1)
    return out.reshape(values.shape).astype(np.float32)


def loudness(samples: npt.NDArray[np.int16], per_frame: int) -> FloatArray:
    """Level of each frame's sound in dB below full scale, smoothed over three frames, float32 [T]."""
    value = samples[: len(samples) // per_frame * per_frame].astype(np.float64) / 32768
    power = uniform_filter((value.reshape(-1, per_frame) ** 2).mean(1), 3, mode="nearest")
    level: FloatArray = (10 * np.log10(power + 1e-10)).astype(np.float32)
    return level
