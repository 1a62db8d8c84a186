from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[object]:
    """A running PostgreSQL server; the tests skip where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'viseme[postgresql]'")
    from tests.doubles.postgresql import PostgresqlServer, programs

    place = programs()
    if place is None:
        pytest.skip("there is no PostgreSQL here: apt-get install postgresql")
    server = PostgresqlServer(place)
    try:
        server.start()
        yield server
    finally:
        server.close()
