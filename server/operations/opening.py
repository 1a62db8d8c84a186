"""Which database the operations are in."""

from __future__ import annotations

from pathlib import Path

from server.errors import ConfigInvalid
from server.operations.sqlite import SqliteStore
from server.operations.store import OperationStore


def open_store(database: str, home: Path) -> OperationStore:
    """Opens the store of operations.

    Args:
        database: URL of a PostgreSQL database; empty: SQLite in the home.
        home: VISEME_HOME.

    Raises:
        ConfigInvalid: The URL is none, or the driver is not installed.
        StoreUnavailable: The database does not answer.
        DiskFull: There is no room for it.
    """
    if not database:
        return SqliteStore(home / "store" / "operations.db")
    try:
        from server.operations.postgresql import PostgresqlStore  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError:
        raise ConfigInvalid(
            "The setting operations.database names a PostgreSQL database, whose driver is not installed.",
            fix="pip install 'viseme[postgresql]'",
        ) from None
    return PostgresqlStore(database)
