"""Operations in the database: accepted once, one holder at a time, nothing lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.errors import AvatarBusy, FieldInvalid, OperationNotFound
from server.operations.store import OperationRecord, OperationStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OperationStore]:
    store = OperationStore(tmp_path / "store" / "operations.db")
    yield store
    store.close()


def accept(store: OperationStore, target: str = "avatars/ada", request_id: str = "") -> OperationRecord:
    return store.accept("train", target, b"request", b"metadata", request_id)


def test_the_same_request_is_accepted_once(store: OperationStore) -> None:
    first = accept(store, request_id="one")
    assert accept(store, "avatars/other", "one") == first
    assert store.list() == [first]
    assert (first.state, first.request, first.metadata, first.attempt) == (
        "pending",
        b"request",
        b"metadata",
        0,
    )


def test_one_operation_at_a_time_on_a_resource(store: OperationStore) -> None:
    first = accept(store)
    with pytest.raises(AvatarBusy) as caught:
        accept(store)
    assert caught.value.fix == "viseme avatars watch avatars/ada"
    claimed = store.claim(60)
    assert claimed is not None and claimed.id == first.id
    with pytest.raises(AvatarBusy):
        accept(store)
    assert store.finish(claimed, b"m", response=b"r")
    second = accept(store)
    assert store.latest("avatars/ada") == second


def test_operations_outlive_the_store(tmp_path: Path) -> None:
    path = tmp_path / "operations.db"
    first = OperationStore(path)
    accepted = accept(first)
    first.close()
    second = OperationStore(path)
    assert second.get(accepted.name) == accepted
    second.close()


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_changes_nothing(store: OperationStore) -> None:
    accept(store)
    slow = store.claim(-1)
    assert slow is not None
    other = store.claim(60)
    assert other is not None and (other.id, other.attempt) == (slow.id, 2) and other.token > slow.token
    assert store.renew(slow, 60, b"late") is None
    assert not store.finish(slow, b"late", response=b"late")
    assert not store.release(slow)
    assert store.renew(other, 60, b"half") is False
    assert store.get(other.name).metadata == b"half"
    assert store.claim(60) is None
    assert store.finish(other, b"end", error=b"e")
    ended = store.get(other.name)
    assert (ended.state, ended.metadata, ended.error, ended.response) == ("done", b"end", b"e", None)


def test_released_operations_wait_as_long_as_asked(store: OperationStore) -> None:
    accept(store)
    record = store.claim(60)
    assert record is not None and store.release(record, 3600)
    assert store.claim(60) is None
    assert store.get(record.name).state == "pending"


def test_cancelling(store: OperationStore) -> None:
    waiting = accept(store)
    store.cancel(waiting, b"cancelled")
    assert (store.get(waiting.name).state, store.get(waiting.name).error) == ("done", b"cancelled")
    accept(store)
    running = store.claim(60)
    assert running is not None
    store.cancel(running, b"cancelled")
    assert store.renew(running, 60, None) is True
    assert store.get(running.name).state == "running"
    store.finish(running, b"", error=b"cancelled")
    done = store.get(running.name)
    store.cancel(done, b"again")
    assert store.get(running.name).error == b"cancelled"


def test_deleting(store: OperationStore) -> None:
    record = accept(store)
    assert not store.delete(record)
    store.cancel(record, b"")
    assert store.delete(record)
    with pytest.raises(OperationNotFound):
        store.get(record.name)
    with pytest.raises(FieldInvalid):
        store.get("operations/No Such!")


def test_many_threads_claim_each_operation_once(tmp_path: Path) -> None:
    path = tmp_path / "operations.db"
    stores = [OperationStore(path) for _ in range(2)]
    accepted = {accept(stores[0], f"avatars/a{number}").id for number in range(40)}
    claimed: list[str] = []

    def work(store: OperationStore) -> None:
        while (record := store.claim(60)) is not None:
            claimed.append(record.id)

    threads = [threading.Thread(target=work, args=(stores[number % 2],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(accepted)
    for store in stores:
        store.close()


class Holders(RuleBasedStateMachine):
    """Whatever happens in whatever order, an operation has one holder, and no accepted one is lost."""

    @initialize()
    def begin(self) -> None:
        self.store = OperationStore(Path(":memory:"))
        self.accepted: dict[str, OperationRecord] = {}
        self.held: dict[str, OperationRecord] = {}
        self.stale: list[OperationRecord] = []
        self.done: dict[str, bytes] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    @rule(target_number=st.integers(0, 3))
    def accept(self, target_number: int) -> None:
        target = f"avatars/a{target_number}"
        try:
            record = accept(self.store, target)
        except AvatarBusy:
            assert any(r.target == target and r.id not in self.done for r in self.accepted.values())
        else:
            self.accepted[record.id] = record

    @rule(expired=st.booleans())
    def claim(self, expired: bool) -> None:
        record = self.store.claim(-1 if expired else 3600)
        if record is None:
            return
        former = self.held.pop(record.id, None)
        if former is not None:
            assert record.token > former.token
            assert former.lease_until < record.lease_until or expired
            self.stale.append(former)
        self.held[record.id] = record

    @precondition(lambda self: self.held)
    @rule(data=st.data(), response=st.binary(max_size=3))
    def finish(self, data: st.DataObject, response: bytes) -> None:
        record = self.held.pop(data.draw(st.sampled_from(sorted(self.held)), label="id"))
        assert self.store.finish(record, b"", response=response)
        self.done[record.id] = response

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        record = self.held.pop(data.draw(st.sampled_from(sorted(self.held)), label="id"))
        assert self.store.release(record)
        self.stale.append(record)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def zombie(self, data: st.DataObject) -> None:
        record = data.draw(st.sampled_from(self.stale), label="record")
        assert not self.store.finish(record, b"zombie", response=b"zombie")
        assert self.store.renew(record, 3600, b"zombie") is None
        assert not self.store.release(record)

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "store"):
            return
        stored = {record.id: record for record in self.store.list()}
        assert set(stored) == set(self.accepted)
        for identifier, record in stored.items():
            if identifier in self.done:
                assert (record.state, record.response) == ("done", self.done[identifier])
            else:
                assert record.state == ("running" if identifier in self.held else "pending")
            assert record.metadata != b"zombie"


TestHolders = Holders.TestCase
TestHolders.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
