"""The stores of operations that the tests run against: SQLite, and a real PostgreSQL where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from server.operations.sqlite import SqliteStore
from server.operations.store import Acceptance, OperationRecord, OperationStore

DIALECTS = ("sqlite", "postgresql")

OpenStore = Callable[[], OperationStore]
"""Opens the same database each time."""


@pytest.fixture(params=DIALECTS)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens an empty database; each call opens it once more."""
    with ExitStack() as stack:
        if request.param == "sqlite":

            def made() -> OperationStore:
                return SqliteStore(tmp_path / "store" / "operations.db")
        else:
            server = request.getfixturevalue("postgresql_server")
            from server.operations.postgresql import PostgresqlStore

            url = server.empty()

            def made() -> OperationStore:
                return PostgresqlStore(url)

        def opened() -> OperationStore:
            store = made()
            stack.callback(store.close)
            return store

        yield opened


@pytest.fixture
def store(open_store: OpenStore) -> OperationStore:
    return open_store()


def accept(
    store: OperationStore, target: str = "avatars/ada", request_id: str = "", **values: object
) -> OperationRecord:
    wanted = {"kind": "train", "request": b"request", "metadata": b"metadata", **values}
    return store.accept(Acceptance(target=target, request_id=request_id, **wanted))  # type: ignore[arg-type]


def listed(store: OperationStore, **only: object) -> list[OperationRecord]:
    return list(store.page(0, 1000, **only))  # type: ignore[arg-type]
