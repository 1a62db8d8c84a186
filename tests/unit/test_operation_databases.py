"""Databases of operations when they are old, gone, locked, full or damaged, and when clocks jump."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.config import load_settings
from server.errors import ConfigInvalid, DiskFull, StoreUnavailable
from server.operations import sqlite
from server.operations.opening import open_store
from server.operations.sql_store import schemas
from server.operations.sqlite import SqliteStore
from tests.unit.operation_stores import accept, listed

HOUR = 3600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "operations.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def old_database(path: Path) -> None:
    """A database of the first schema, with an operation in every state."""
    connection = sqlite3.connect(path)
    connection.executescript(schemas("sqlite")[0])
    common = {"kind": "train", "request": b"request", "metadata": b"metadata"}
    later = time.time() + HOUR
    for number, values in enumerate(
        (
            {"id": "e0", "state": "done", "ended": 30.0, "error": b"error", "request_id": "mine"},
            {"id": "d0", "state": "done", "ended": 20.0, "response": b"response", "started": 15.0},
            {"id": "c0", "state": "running", "lease_until": later, "token": 7, "attempt": 3, "started": 5.0},
            {"id": "b0", "state": "running", "lease_until": later, "token": 1, "attempt": 1, "cancelled": 1},
            {"id": "a0", "state": "pending", "not_before": later},
        )
    ):
        row: dict[str, Any] = {"created": float(number), "target": f"avatars/{number}", "request_id": ""}
        row |= {**common, **values}
        marks = ", ".join("?" for _ in row)
        connection.execute(f"INSERT INTO operations ({', '.join(row)}) VALUES ({marks})", list(row.values()))
    connection.commit()
    connection.close()


def test_the_first_schema_is_brought_up_to_date_and_keeps_every_operation(path: Path) -> None:
    old_database(path)
    store = SqliteStore(path)
    failed, succeeded, running, unwanted, waiting = listed(store)
    assert [r.id for r in (failed, succeeded, running, unwanted, waiting)] == ["e0", "d0", "c0", "b0", "a0"]
    assert {(r.kind, r.request, r.metadata, r.owner, r.priority) for r in listed(store)} == {
        ("train", b"request", b"metadata", "", 3)
    }
    assert (failed.state, failed.ended, failed.error, failed.response) == ("done", 30.0, b"error", None)
    assert (succeeded.started, succeeded.ended, succeeded.response) == (15.0, 20.0, b"response")
    assert (running.state, running.token, running.attempt, running.started) == ("running", 7, 3, 5.0)
    assert unwanted.cancelled and (waiting.state, waiting.created) == ("pending", 4.0)
    assert store.by_request("train", "mine") == failed
    # Whoever held them wrote the old schema and is gone.
    assert not store.finish(store.get("operations/e0"), b"")
    claims = [store.claim(60) for _ in range(4)]
    assert [(r.id, r.token) if r else None for r in claims] == [("c0", 8), ("b0", 2), ("a0", 1), None]
    store.close()
    again = SqliteStore(path)
    assert [record.id for record in listed(again)] == ["e0", "d0", "c0", "b0", "a0"]
    again.close()


def test_servers_that_bring_a_database_up_to_date_at_once(path: Path) -> None:
    old_database(path)
    stores: list[SqliteStore] = []
    threads = [threading.Thread(target=lambda: stores.append(SqliteStore(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(listed(store)) for store in stores] == [5] * 4
    for store in stores:
        store.close()


def test_a_database_of_a_newer_version_is_left_alone(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreUnavailable, match="newer viseme"):
        SqliteStore(path)


def test_the_wall_clock_jumps(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = time.time
    accept(store, "avatars/first")
    held = store.claim(60)
    assert held is not None
    for jump in (5 * HOUR, -5 * HOUR, -100_000 * HOUR):
        monkeypatch.setattr(time, "time", lambda jump=jump: wall() + jump)
        assert store.claim(60) is None
        assert store.renew(held, 60, None) is False
        accept(store, f"avatars/{jump:.0f}")
        newer = store.claim(60)
        assert newer is not None and store.release(newer, 60)
    # Age is the order of acceptance, whatever the clock said.
    assert [record.target for record in listed(store)] == [
        "avatars/first",
        "avatars/18000",
        "avatars/-18000",
        "avatars/-360000000",
    ]
    assert store.finish(held, b"", response=b"r")


def test_the_machine_is_booted(path: Path) -> None:
    clock = [500_000.0]
    store = SqliteStore(path, clock=lambda: clock[0])
    accept(store)
    accept(store, "avatars/b")
    held, waiting = store.claim(20), store.claim(20)
    assert held is not None and waiting is not None
    assert store.release(waiting, 10)
    clock[0] += 9
    assert store.claim(20) is None
    # Since the boot: whoever held a lease before is gone, and delays are over.
    clock[0] = 12.0
    claims = [store.claim(20) for _ in range(3)]
    assert [record and (record.id, record.token) for record in claims] == [
        (held.id, 2),
        (waiting.id, 2),
        None,
    ]
    store.close()


def test_a_database_that_is_moved_away_is_missed_not_made_anew(
    path: Path, store: SqliteStore, tmp_path: Path
) -> None:
    accepted = accept(store)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    names = [file for file in tmp_path.iterdir() if file.name.startswith("operations.db")]
    for file in names:
        file.rename(elsewhere / file.name)
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as caught:
            accept(store, "avatars/b")
        assert caught.value.retryable and caught.value.message.endswith(".")
        with pytest.raises(StoreUnavailable):
            store.get(accepted.name)
    assert not path.exists()
    for file in elsewhere.iterdir():
        file.rename(path.with_name(file.name))
    assert store.get(accepted.name) == accepted
    assert accept(store, "avatars/b").state == "pending"


def test_a_database_that_is_locked(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_SECONDS", 0.05)
    impatient = SqliteStore(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked by another program"):
        accept(impatient)
    # Who only looks is not held up.
    assert listed(impatient) == []
    other.execute("ROLLBACK")
    assert accept(impatient).state == "pending"
    other.close()
    impatient.close()


def test_a_database_that_is_damaged(path: Path) -> None:
    path.write_bytes(b"This is no database, whatever it says on the door. " * 100)
    with pytest.raises(StoreUnavailable, match="damaged"):
        SqliteStore(path)


def test_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(path)
    accepted = accept(store)
    with store._writer.use() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(DiskFull):
        accept(store, "avatars/b", request=b"x" * 100_000)
    # What was accepted is there, and what fits still works.
    assert store.get(accepted.name) == accepted
    assert accept(store, "avatars/b").target == "avatars/b"
    store.close()


def test_callers_who_come_together_share_a_transaction(path: Path) -> None:
    store = SqliteStore(path)
    commits: list[str] = []
    with store._writer.use() as connection:
        connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    held = store._writing
    held.acquire()
    threads = [threading.Thread(target=accept, args=(store, f"avatars/a{n}")) for n in range(20)]
    for thread in threads:
        thread.start()
    while len(store._waiting) < 20:
        time.sleep(0.001)  # nothing tells that they wait
    held.release()
    for thread in threads:
        thread.join()
    assert len(listed(store)) == 20 and len(commits) == 1
    store.close()


PASSWORD = "s3cret-word"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://viseme:{PASSWORD}@127.0.0.1:1/viseme",
        f"postgresql://viseme:{PASSWORD}@no.such.host.invalid/viseme",
        f"postgresql://viseme:{PASSWORD}@[::1/viseme",
        f"postgresql://viseme:x@127.0.0.1/viseme?nonsense={PASSWORD}",
    ],
)
def test_passwords_are_told_to_nobody(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'viseme[postgresql]'")
    with pytest.raises((StoreUnavailable, ConfigInvalid)) as caught:
        open_store(url, tmp_path)
    assert caught.value.message.endswith(".")
    said = f"{caught.value.message} {caught.value.info()} {caplog.text} {''.join(capfd.readouterr())}"
    assert PASSWORD not in said


def test_urls_of_other_databases(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(operations={"database": f"mysql://viseme:{PASSWORD}@localhost/viseme"})
    assert "operations.database" in caught.value.message and PASSWORD not in caught.value.message
    settings = load_settings(operations={"database": f"postgresql://viseme:{PASSWORD}@localhost/viseme"})
    assert PASSWORD not in f"{settings} {settings!r}"


def test_a_driver_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "server.operations.postgresql", None)
    with pytest.raises(ConfigInvalid) as caught:
        open_store("postgresql://viseme@localhost/viseme", tmp_path)
    assert caught.value.fix == "pip install 'viseme[postgresql]'"


def test_postgresql_goes_and_comes_back(postgresql_server: Any, tmp_path: Path) -> None:
    store = open_store(postgresql_server.empty(), tmp_path)
    postgresql_server.empty()
    with pytest.raises(StoreUnavailable, match="does not exist"):
        accept(store)
    store.close()
    store = open_store(postgresql_server.empty(), tmp_path)
    accepted = accept(store)
    held = store.claim(60)
    assert held is not None
    postgresql_server.stop()
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as caught:
                accept(store, "avatars/b")
            assert caught.value.message.endswith(".") and "\n" not in caught.value.message
    finally:
        postgresql_server.start()
    assert store.renew(held, 60, b"on") is False
    assert store.get(accepted.name).metadata == b"on"
    assert accept(store, "avatars/b").state == "pending"
    # A connection that broke while nobody looked is not used again.
    postgresql_server.stop()
    postgresql_server.start()
    assert store.finish(held, b"", response=b"r")
    store.close()


def test_servers_that_make_a_postgresql_database_at_once(postgresql_server: Any, tmp_path: Path) -> None:
    url = postgresql_server.empty()
    stores: list[Any] = []
    threads = [threading.Thread(target=lambda: stores.append(open_store(url, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accept(stores[0])
    assert [len(listed(store)) for store in stores] == [1] * 4
    for store in stores:
        store.close()


def test_a_postgresql_database_whose_clock_is_set_back(postgresql_server: Any, tmp_path: Path) -> None:
    import psycopg

    url = postgresql_server.empty()
    store = open_store(url, tmp_path)
    accept(store)
    held = store.claim(20)
    assert held is not None and store.claim(20) is None
    with psycopg.connect(url, autocommit=True) as connection:
        # As it looks when the clock went five hours back: the lease ends long after any that is given now.
        connection.execute("UPDATE operations SET free_at = free_at + interval '5 hours'")
        taken = store.claim(20)
        assert taken is not None and taken.token > held.token
        assert store.renew(held, 20, None) is None
        # A claim passes over what another has in its hands.
        accept(store, "avatars/b")
        third = accept(store, "avatars/c")
        with connection.transaction():
            connection.execute("SELECT * FROM operations WHERE target = 'avatars/b' FOR UPDATE")
            claimed = store.claim(20)
        assert claimed is not None and claimed.id == third.id
    store.close()
