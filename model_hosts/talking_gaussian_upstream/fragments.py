"""Cuts a fragmented MP4 into the pieces that the protocol sends (ISO/IEC 14496-12)."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

_VIDEO_TRACK = 1
"""Our muxer writes the pictures first."""


def read_fragments(path: Path) -> Iterator[tuple[bytes, int]]:
    """The pieces of a file, each with the number of its pictures: the head first, with none."""
    data = path.read_bytes()
    piece, frames = b"", 0
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind in {b"ftyp", b"moov", b"moof", b"mdat"}:
            piece += data[start:end]
        if kind == b"moof":
            frames = _pictures(data, start + 8, end)
        if kind in {b"moov", b"mdat"}:
            yield piece, frames
            piece, frames = b"", 0


def _pictures(data: bytes, start: int, end: int) -> int:
    """Pictures in a movie fragment."""
    count = 0
    for kind, first, last in _boxes(data, start, end):
        if kind != b"traf":
            continue
        inside = list(_boxes(data, first + 8, last))
        track = next(_number(data, at + 12) for name, at, _ in inside if name == b"tfhd")
        if track == _VIDEO_TRACK:
            count += sum(_number(data, at + 12) for name, at, _ in inside if name == b"trun")
    return count


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each box in a range."""
    while start + 8 <= end:
        size = _number(data, start)
        if size == 1:
            size = int.from_bytes(data[start + 8 : start + 16], "big")
        if size < 8:
            return
        yield data[start + 4 : start + 8], start, min(start + size, end)
        start += size


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
