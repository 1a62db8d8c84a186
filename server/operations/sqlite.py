"""Operations in SQLite: for the servers of one machine.

Everything is on the disk before its caller hears of it (`synchronous = FULL`). That costs a flush of the
disk a transaction; callers that come while one is being flushed share the next (group commit).
"""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from server.errors import StoreUnavailable
from server.media.spool import disk_full_as_error
from server.operations.clock import boot_seconds
from server.operations.sql_store import SqlStore, Statement, queries, schemas

_BUSY_SECONDS: Final = 5.0
_MOST_TOGETHER: Final = 200
_QUERIES: Final = queries("sqlite")
_SCHEMAS: Final = schemas("sqlite")


class SqliteStore(SqlStore):
    """The operations of one home, an `OperationStore`.

    Leases are measured by the time since the machine was booted, which nobody can set.

    Args:
        path: The database; made when it is missing.
        clock: Seconds of the clock that leases are measured by.

    Raises:
        StoreUnavailable: It cannot be opened.
        DiskFull: There is no room for it.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = boot_seconds) -> None:
        with disk_full_as_error():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clock = clock
        self._reader = _Database(path)
        self._writer = _Database(path)
        with self._writer.use(create=True):
            pass
        self._writing = threading.Lock()
        self._waiting: deque[_Job] = deque()

    def close(self) -> None:
        """Closes the database."""
        self._reader.close()
        with self._writing:
            self._writer.close()

    def _read(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        with self._reader.use() as connection:
            return connection.execute(_QUERIES[query], values).fetchall()

    def _write(self, statements: Sequence[Statement]) -> Sequence[Any]:
        job = _Job(statements)
        self._waiting.append(job)
        with self._writing:
            # Whoever had the lock before may have done this one as well.
            while not job.done:
                self._write_waiting()
        if job.error is not None:
            raise job.error
        return job.rows

    def _write_waiting(self) -> None:
        """Does what waits to be written, in one transaction."""
        jobs = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TOGETHER))]
        try:
            with self._writer.use() as connection:
                connection.execute("BEGIN IMMEDIATE")
                common = {"clock": self._clock(), "now": time.time()}
                for job in jobs:
                    for query, values in job.statements:
                        job.rows = connection.execute(_QUERIES[query], {**common, **values}).fetchall()
                connection.execute("COMMIT")
        except Exception as error:
            for job in jobs:
                job.error = error
        finally:
            for job in jobs:
                job.done = True


class _Job:
    """Statements that wait to be written, and what came of them."""

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self.rows: Sequence[Any] = ()
        self.error: Exception | None = None
        self.done = False


class _Database:
    """A connection that is opened again after trouble, but never makes the database anew.

    A database that was moved away holds work that was accepted: an empty one in its place would lose it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    @contextmanager
    def use(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Gives the connection to one thread at a time.

        Args:
            create: Make the database when it is missing.

        Raises:
            StoreUnavailable: The database cannot be used at the moment.
            DiskFull: There is no room.
        """
        with self._lock, _told(self._path):
            try:
                yield self._open(create)
            except BaseException:
                # Whatever was begun is undone with it.
                self._drop()
                raise

    def close(self) -> None:
        """Closes the connection."""
        with self._lock:
            self._drop()

    def _open(self, create: bool) -> sqlite3.Connection:
        if self._connection is not None and self._file != _file(self._path):
            self._drop()
        if self._connection is None:
            mode = "rwc" if create else "rw"
            connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection = connection
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            # An accepted operation outlives a power cut.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            _migrate(connection)
            self._file = _file(self._path)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is at a path, if any."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _migrate(connection: sqlite3.Connection) -> None:
    if _version(connection) == len(_SCHEMAS):
        return
    connection.execute("BEGIN IMMEDIATE")
    # Another server on this home may have been faster.
    version = _version(connection)
    if version > len(_SCHEMAS):
        raise StoreUnavailable(
            "The database of operations was written by a newer viseme.", fix="Run that version."
        )
    # executescript would end the transaction.
    for statement in (part for schema in _SCHEMAS[version:] for part in _statements(schema)):
        connection.execute(statement)
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        problem = str(error)
        if "full" in problem:
            with disk_full_as_error():
                raise OSError(errno.ENOSPC, "no space left") from error
        if "locked" in problem or "busy" in problem:
            raise StoreUnavailable(
                f"The database of operations is locked by another program: {path}.", fix="Close that program."
            ) from error
        raise StoreUnavailable(f"The database of operations cannot be used ({problem}): {path}.") from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError | sqlite3.InterfaceError):
            raise
        raise StoreUnavailable(f"The database of operations is damaged ({error}): {path}.") from error
