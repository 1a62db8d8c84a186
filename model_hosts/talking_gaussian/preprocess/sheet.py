"""A contact sheet: one look tells a user what was understood of the video and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.images import encode_png
from model_hosts.talking_gaussian.preprocess.gate import Finding
from model_hosts.talking_gaussian.preprocess.source import FPS

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

_COLUMNS, _ROWS = 6, 3
_TILE = 256


def draw_sheet(
    frames: Callable[[], Iterable[ByteArray]],
    points: FloatArray,
    labels: Callable[[], Iterable[ByteArray]] | None,
    findings: list[Finding],
) -> ByteArray:
    """Frames over the whole clip with landmarks; those that a finding names have a red border."""
    count = len(points)
    chosen = sorted(set(np.linspace(0, count - 1, _COLUMNS * _ROWS).astype(int).tolist()))
    bad = {round(second * FPS) for finding in findings for second in finding.seconds}
    tiles = []
    for index, picture in enumerate(frames()):
        if index in chosen:
            tile = picture.copy()
            for x, y in points[index, :, :2].astype(int):
                if 0 <= x < tile.shape[1] and 0 <= y < tile.shape[0]:
                    tile[y, x] = (0, 255, 0)
            if index in bad:
                tile[:8] = tile[-8:] = (255, 0, 0)
            tiles.append(tile)
    while len(tiles) % _COLUMNS:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.concatenate(tiles[k : k + _COLUMNS], 1) for k in range(0, len(tiles), _COLUMNS)]
    return np.concatenate(rows, 0)


def write_sheet(path: Path, sheet: ByteArray) -> None:
    """Writes it as PNG."""
    path.write_bytes(encode_png(np.ascontiguousarray(sheet)))
