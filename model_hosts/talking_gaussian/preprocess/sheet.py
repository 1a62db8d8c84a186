"""A contact sheet: one look tells a user what was understood of the video and what is wrong with it.

From the top: the video with its faces (green) and the square that is used (white); frames of the clip with
their landmarks; frames that a finding names, with a red border; label maps (face red, hair brown, inside of
the mouth white, neck green, clothes blue) and the background. The number in a corner is the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import av
import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.preprocess.crop import Crop
from model_hosts.talking_gaussian.preprocess.gate import Finding
from model_hosts.talking_gaussian.preprocess.source import FPS
from model_hosts.talking_gaussian.preprocess.steps import Arrays

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

COLUMNS = 6
TILE = 256
_GREEN, _WHITE, _RED = (0, 230, 90), (255, 255, 255), (230, 0, 0)
_PALETTE = np.array(
    [(40, 40, 40), (240, 90, 80), (120, 70, 30), (255, 255, 255), (60, 200, 80), (70, 90, 230)], np.float32
)


@dataclass(frozen=True)
class Shown:
    """Frames of the clip that the sheet shows.

    Attributes:
        usual: Spread over the clip.
        wrong: Named by findings.
    """

    usual: tuple[int, ...]
    wrong: tuple[int, ...]


def shown_frames(count: int, findings: list[Finding]) -> Shown:
    """Picks two rows of frames, and one of frames with problems."""
    named = sorted({round(second * FPS) for finding in findings for second in finding.seconds})
    wrong = [index for index in named if index < count]
    if len(wrong) > COLUMNS:
        wrong = [wrong[k] for k in np.linspace(0, len(wrong) - 1, COLUMNS).astype(int)]
    usual = np.linspace(0, count - 1, min(count, 2 * COLUMNS)).astype(int)
    return Shown(tuple(usual.tolist()), tuple(wrong))


def video_rows(surveyed: Arrays, crop: Crop | None) -> list[ByteArray]:
    """A row of the whole video: faces and crop; a red border where there is not exactly one face."""
    tiles = []
    glances, places = surveyed["glances"], surveyed["glance_places"]
    share = glances.shape[2] / surveyed["size"][0]
    for pick in np.linspace(0, len(places) - 1, min(COLUMNS, len(places))).astype(int):
        tile = glances[pick].copy()
        boxes = surveyed["boxes"][places[pick]]
        for box in boxes[np.isfinite(boxes[:, 0])]:
            _frame(tile, box * share, _GREEN)
        if crop is not None:
            square = (crop.left, crop.top, crop.left + crop.side, crop.top + crop.side)
            _frame(tile, np.array(square) * share, _WHITE)
        tile = _fitted(tile)
        if np.isfinite(boxes[:, 0]).sum() != 1:
            _border(tile)
        _second(tile, float(surveyed["looked"][places[pick]]))
        tiles.append(tile)
    return _rows(tiles)


def clip_rows(shown: Shown, frames: Iterable[ByteArray], points: FloatArray) -> list[ByteArray]:
    """Rows of the clip's frames with landmarks."""
    wanted = set(shown.usual) | set(shown.wrong)
    tiles = {}
    for index, picture in enumerate(frames):
        if index in wanted:
            tile = _fitted(picture)
            _dots(tile, points[index, :, :2] * TILE / picture.shape[1])
            _second(tile, index / FPS)
            tiles[index] = tile
    rows = _rows([tiles[index] for index in shown.usual if index in tiles])
    wrong = [tiles[index].copy() for index in shown.wrong if index in tiles]
    for tile in wrong:
        _border(tile)
    return rows + _rows(wrong)


def label_rows(
    shown: Shown, frames: Iterable[ByteArray], labels: Iterable[ByteArray], plate: ByteArray
) -> list[ByteArray]:
    """A row of label maps over their frames, the background last."""
    wanted = set(shown.usual[:: max(1, len(shown.usual) // (COLUMNS - 1))][: COLUMNS - 1])
    tiles = []
    for index, (picture, label) in enumerate(zip_longest(frames, labels)):
        if index in wanted:
            tile = _fitted((0.45 * picture + 0.55 * _PALETTE[label]).astype(np.uint8))
            _second(tile, index / FPS)
            tiles.append(tile)
    return _rows([*tiles, _fitted(plate)])


def joined(rows: list[ByteArray]) -> ByteArray:
    """The sheet, uint8 [rows * 256, 6 * 256, 3]."""
    return np.ascontiguousarray(np.concatenate(rows, 0))


def _rows(tiles: list[ByteArray]) -> list[ByteArray]:
    empty = np.full((TILE, TILE, 3), 24, np.uint8)
    full = tiles + [empty] * (-len(tiles) % COLUMNS)
    return [np.concatenate(full[k : k + COLUMNS], 1) for k in range(0, len(full), COLUMNS)]


def _fitted(picture: ByteArray) -> ByteArray:
    """The picture in the middle of a tile."""
    share = TILE / max(picture.shape[:2])
    height, width = (max(1, round(side * share)) for side in picture.shape[:2])
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    small = frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
    tile = np.full((TILE, TILE, 3), 24, np.uint8)
    top, left = (TILE - height) // 2, (TILE - width) // 2
    tile[top : top + height, left : left + width] = small
    return tile


def _frame(tile: ByteArray, box: npt.ArrayLike, colour: tuple[int, int, int]) -> None:
    left, top, right, bottom = np.round(np.asarray(box)).astype(int)
    height, width = tile.shape[:2]
    rows = slice(max(0, top), min(height, bottom))
    columns = slice(max(0, left), min(width, right))
    for row in (top, bottom - 2):
        tile[max(0, row) : max(0, row + 2), columns] = colour
    for column in (left, right - 2):
        tile[rows, max(0, column) : max(0, column + 2)] = colour


def _dots(tile: ByteArray, points: FloatArray) -> None:
    place = points.astype(int)
    inside = ((place >= 0) & (place < TILE)).all(1)
    tile[place[inside, 1], place[inside, 0]] = _GREEN


def _border(tile: ByteArray) -> None:
    tile[:5], tile[-5:], tile[:, :5], tile[:, -5:] = _RED, _RED, _RED, _RED


def _second(tile: ByteArray, second: float) -> None:
    """Writes the second into the upper left corner."""
    tile[6:26, 6 : 6 + 12 * len(f"{second:.1f}") + 6] = (0, 0, 0)
    for place, glyph in enumerate(_glyphs(f"{second:.1f}")):
        big = np.kron(glyph, np.ones((3, 3), bool))
        area = tile[8 : 8 + big.shape[0], 10 + 12 * place : 10 + 12 * place + big.shape[1]]
        area[big] = _WHITE


def _glyphs(text: str) -> Iterator[npt.NDArray[np.bool_]]:
    for character in text:
        yield np.array([[cell == "#" for cell in line] for line in _FONT[character]])


_FONT = {
    "0": ("###", "#.#", "#.#", "#.#", "###"),
    "1": (".#.", "##.", ".#.", ".#.", "###"),
    "2": ("###", "..#", "###", "#..", "###"),
    "3": ("###", "..#", ".##", "..#", "###"),
    "4": ("#.#", "#.#", "###", "..#", "..#"),
    "5": ("###", "#..", "###", "..#", "###"),
    "6": ("###", "#..", "###", "#.#", "###"),
    "7": ("###", "..#", ".#.", ".#.", ".#."),
    "8": ("###", "#.#", "###", "#.#", "###"),
    "9": ("###", "#.#", "###", "..#", "###"),
    ".": ("...", "...", "...", "...", ".#."),
}
