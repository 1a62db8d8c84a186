"""How many operations a second the store takes: accepted, claimed and finished, each kept on the disk.

Usage:
    python -m benchmarks.operations [--seconds 5] [--json]

SQLite as it ships, at `synchronous = FULL`: every change is flushed to the disk before its caller goes on;
callers at the same time share a flush. PostgreSQL is measured where its server is installed, as it ships.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from benchmarks._report import Figure, Figures, run
from server.operations.sqlite import SqliteStore
from server.operations.store import Acceptance, OperationStore

_CALLERS = 32
_REQUEST = b"r" * 200
_METADATA = b"m" * 100
_FLUSHES = 50


def rate(store: OperationStore, callers: int, seconds: float) -> float:
    """Operations a second that go all the way, with so many callers at the same time."""
    numbers = itertools.count()
    counts = [0] * callers
    end = time.perf_counter() + seconds

    def work(place: int) -> None:
        while time.perf_counter() < end:
            target = f"avatars/a{next(numbers)}"
            store.accept(Acceptance("train", target, _REQUEST, _METADATA, request_id=target))
            # Not necessarily the same one, but there is one for each caller.
            record = store.claim(60)
            if record is not None and store.finish(record, _METADATA, response=_REQUEST):
                counts[place] += 1

    threads = [threading.Thread(target=work, args=(place,)) for place in range(callers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def flush_milliseconds(directory: Path) -> float:
    """Median time that the disk takes to keep a page."""
    spent = []
    with (directory / "flush").open("wb", buffering=0) as file:
        for _ in range(_FLUSHES):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            spent.append(time.perf_counter() - began)
    return 1000 * statistics.median(spent)


def sqlite(directory: Path, seconds: float) -> Figures:
    """Rates of SQLite."""
    flush = flush_milliseconds(directory)
    rates = []
    for callers in (_CALLERS, 1):
        store = SqliteStore(directory / f"{callers}.db")
        rates.append(rate(store, callers, seconds))
        store.close()
    many, one = rates
    note = f"synchronous = FULL; a flush of this disk takes {flush:.2g} ms"
    return {
        f"SQLite, {_CALLERS} callers": Figure(many, "operations/s", 1000, "at least", note),
        "SQLite, one caller": Figure(one, "operations/s", note="three flushes each"),
    }


def postgresql(seconds: float) -> Figures:
    """Rate of PostgreSQL."""
    name = f"PostgreSQL, {_CALLERS} callers"
    try:
        from server.operations.postgresql import PostgresqlStore  # noqa: PLC0415 (an extra)
        from tests.doubles.postgresql import PostgresqlServer, programs  # noqa: PLC0415
    except ModuleNotFoundError:
        return {name: Figure(None, "operations/s", note="psycopg is not installed")}
    place = programs()
    if place is None:
        return {name: Figure(None, "operations/s", note="there is no PostgreSQL server here")}
    server = PostgresqlServer(place, durable=True)
    try:
        server.start()
        store = PostgresqlStore(server.url)
        value = rate(store, _CALLERS, seconds)
        store.close()
    finally:
        server.close()
    return {name: Figure(value, "operations/s", note="fsync and synchronous_commit on, 8 connections")}


def measure(arguments: argparse.Namespace) -> Figures:
    """All figures."""
    with tempfile.TemporaryDirectory() as scratch:
        return {**sqlite(Path(scratch), arguments.seconds), **postgresql(arguments.seconds)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    run("operations", measure, parser)
