"""How commands speak: results on standard output, the rest on standard error, colours on terminals only."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@cache
def stdout() -> Console:
    """Where results go."""
    from rich.console import Console

    # Programs that read a table want one line a row.
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)


@cache
def stderr() -> Console:
    """Where progress, advice and errors go."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Tells the user something on standard error, as it is."""
    stderr().print(text, markup=False)


def print_json(data: object) -> None:
    """Writes one JSON document, indented, and nothing else."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def print_json_line(data: object) -> None:
    """Writes one JSON document on one line, at once."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """Writes a plain table.

    Args:
        columns: Headings.
        rows: Texts, one per heading.
        empty: The sentence to write when there are no rows.
    """
    stdout().print(make_table(columns, rows) if rows else empty, markup=False)


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A plain table, to be written or drawn.

    Args:
        columns: Headings.
        rows: Texts, one per heading.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def size_text(size: float) -> str:
    """Bytes for people: 1.5 MB."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def memory_text(size: float) -> str:
    """Memory for people, as GPUs are sold and leases are given: 9.1 GiB."""
    return f"{size / 2**30:.1f} GiB"


def seconds_text(seconds: float) -> str:
    """Seconds for people: 0.4 s, 3 min 5 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def wait_text(seconds: float) -> str:
    """Seconds for people who wait, roughly: 40 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def to_data(value: Any) -> dict[str, Any]:
    """A dataclass of the client library as JSON-ready data; bytes are left out."""
    return {
        field.name: _plain(found)
        for field in dataclasses.fields(value)
        if not isinstance(found := getattr(value, field.name), bytes)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return to_data(value)
    if isinstance(value, Exception):
        names = ("reason", "message", "fix", "retryable", "status", "metadata")
        return {name: getattr(value, name) for name in names}
    return value
