"""Operations in PostgreSQL: for servers on several machines.

psycopg's blocking connections, because the store is blocking: it is called from worker threads, as SQLite
is. Connections are made when they are needed and kept; one that was lost is never tried twice, so that a
caller hears at once that the database does not answer.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from server.errors import ConfigInvalid, DiskFull, StoreUnavailable
from server.operations.sql_store import SqlStore, Statement, queries, schemas

_MOST_CONNECTIONS: Final = 8
_DEFAULTS: Final = {
    "application_name": "viseme",
    "connect_timeout": 5,
    # A network that swallows everything is noticed as well, milliseconds.
    "tcp_user_timeout": 10_000,
    "options": "-c statement_timeout=10s -c lock_timeout=5s",
}
_LOCK: Final = 0x76697365
"""Of those who migrate the database; any number that nobody else uses."""
_QUERIES: Final = queries("postgresql")
_SCHEMAS: Final = schemas("postgresql")

Connection = psycopg.Connection[dict[str, Any]]


class PostgresqlStore(SqlStore):
    """The operations of all servers that use a database, an `OperationStore`.

    Leases are measured by the clock of the database.

    Args:
        url: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.

    Raises:
        ConfigInvalid: That is no such URL.
        StoreUnavailable: The database does not answer.
    """

    def __init__(self, url: str) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.Error:
            # What libpq says may repeat the password.
            raise ConfigInvalid(
                "The setting operations.database is not valid: write it as "
                "postgresql://USER:PASSWORD@HOST:PORT/DATABASE."
            ) from None
        self._parameters: dict[str, Any] = {**_DEFAULTS, **given}
        self._free: deque[Connection] = deque()
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._closed = False
        self._migrate()

    def close(self) -> None:
        """Closes the connections."""
        self._closed = True
        while self._free:
            self._free.pop().close()

    def _read(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        with self._connection() as connection:
            return connection.execute(_QUERIES[query].encode(), values).fetchall()

    def _write(self, statements: Sequence[Statement]) -> Sequence[Any]:
        if len(statements) == 1:
            # A transaction of its own without the two round trips of one.
            return self._read(*statements[0])
        rows: Sequence[Any] = ()
        with self._connection() as connection, connection.transaction():
            for query, values in statements:
                rows = connection.execute(_QUERIES[query].encode(), values).fetchall()
        return rows

    def _migrate(self) -> None:
        with self._connection() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            connection.execute("CREATE TABLE IF NOT EXISTS operations_schema (version INTEGER NOT NULL)")
            found = connection.execute("SELECT max(version) AS version FROM operations_schema").fetchone()
            version = int((found or {}).get("version") or 0)
            if version > len(_SCHEMAS):
                raise StoreUnavailable(
                    "The database of operations was written by a newer viseme.", fix="Run that version."
                )
            for number, script in enumerate(_SCHEMAS[version:], version + 1):
                connection.execute(script.encode())
                connection.execute("INSERT INTO operations_schema VALUES (%s)", [number])

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection for one thread.

        Raises:
            StoreUnavailable: The database does not answer.
            DiskFull: Its disk is full.
        """
        with self._places, _told():
            connection = self._idle() or psycopg.connect(
                "", autocommit=True, row_factory=dict_row, **self._parameters
            )
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            if self._closed:
                connection.close()
            else:
                self._free.append(connection)

    def _idle(self) -> Connection | None:
        while True:
            try:
                connection = self._free.pop()
            except IndexError:
                return None
            # A server that speaks unasked says that it is going.
            if not connection.closed and not select.select([connection], [], [], 0)[0]:
                return connection
            connection.close()


@contextmanager
def _told() -> Iterator[None]:
    """Turns PostgreSQL's errors into ours; what it says of a connection never has the password in it."""
    try:
        yield
    except psycopg.errors.DiskFull as error:
        raise DiskFull("The disk of the database of operations is full.") from error
    except psycopg.Error as error:
        # Also tables that were dropped and rights that were taken: all that an operator puts right meanwhile.
        problem = " ".join(str(error).split()) or type(error).__name__
        raise StoreUnavailable(f"The database of operations cannot be used ({problem}).") from error
