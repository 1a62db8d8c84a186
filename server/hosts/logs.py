"""Log files of hosts: bounded in size, read from the end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

_ROTATE_BYTES: Final = 4 * 1024 * 1024
_KEPT: Final = 3
_BLOCK_BYTES: Final = 64 * 1024


def rotate(path: Path, limit: int = _ROTATE_BYTES, kept: int = _KEPT) -> None:
    """Moves a log that has grown past a limit to `NAME.1`, and older ones further, the oldest away.

    The file itself is emptied and not replaced: a running host goes on appending to it.

    Args:
        path: The log; need not exist.
        limit: Size in bytes up to which nothing happens.
        kept: How many older files stay.
    """
    if not path.exists() or path.stat().st_size <= limit:
        return
    for number in range(kept - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)


def tail(path: Path, lines: int = 100, *, since: int = 0) -> str:
    """The last lines of a log; empty when there is none.

    Args:
        path: The log.
        lines: How many lines at most.
        since: Offset in bytes before which nothing is read; taken as 0 when the log is shorter.
    """
    if lines <= 0 or not path.exists():
        return ""
    with path.open("rb") as log:
        end = log.seek(0, os.SEEK_END)
        start = since if since <= end else 0
        position = end
        data = b""
        while position > start and data.count(b"\n") <= lines:
            size = min(_BLOCK_BYTES, position - start)
            position -= size
            log.seek(position)
            data = log.read(size) + data
    return "\n".join(data.decode("utf-8", "replace").splitlines()[-lines:])


def last_words(path: Path, *, since: int = 0, lines: int = 5) -> str:
    """What a process that died said last, without the frames of tracebacks.

    Args:
        path: Its log.
        since: Offset in bytes where its output starts.
        lines: How many lines at most.
    """
    said = [
        line.rstrip()
        for line in tail(path, 200, since=since).splitlines()
        if line.strip() and not line[0].isspace() and not line.startswith("Traceback (")
    ]
    return "\n".join(said[-lines:])
