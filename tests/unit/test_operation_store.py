"""Operations in SQLite and in PostgreSQL: accepted once, one holder at a time, nothing lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gpu_scheduler import Class
from server.errors import AvatarBusy, FieldInvalid, OperationNotFound, RequestIdReused
from server.operations.store import LogLine, OperationRecord, OperationStore
from tests.unit.operation_stores import OpenStore, accept, listed, open_store, store

__all__ = ["open_store", "store"]


def claimed(store: OperationStore, lease_seconds: float = 60) -> OperationRecord:
    record = store.claim(lease_seconds)
    assert record is not None
    return record


def done(store: OperationStore, target: str = "avatars/ada") -> OperationRecord:
    """An operation that has ended."""
    accept(store, target)
    record = claimed(store)
    assert store.finish(record, b"end", response=b"r")
    return store.get(record.name)


def test_the_same_request_is_accepted_once(store: OperationStore) -> None:
    before = time.time()
    first = accept(store, request_id="one")
    assert accept(store, request_id="one") == first
    assert listed(store) == [first]
    assert store.by_request("train", "one") == first
    assert (first.state, first.request, first.metadata, first.attempt, first.priority, first.owner) == (
        "pending",
        b"request",
        b"metadata",
        0,
        Class.TRAINING,
        "",
    )
    assert before - 1 <= first.created <= time.time() + 1
    # Also when it is over.
    assert store.finish(claimed(store), b"", response=b"r")
    assert accept(store, request_id="one").id == first.id


def test_a_request_id_is_of_one_request(store: OperationStore) -> None:
    first = accept(store, request_id="one")
    for values in ({"request": b"other"}, {"target": "avatars/other"}):
        with pytest.raises(RequestIdReused) as caught:
            accept(store, request_id="one", **values)
        assert caught.value.metadata == {"operation": first.name}
    # Another tenant, and another kind of request, have ids of their own.
    others = [accept(store, "avatars/b", "one", owner="b"), accept(store, "avatars/c", "one", kind="create")]
    assert len({first.id, *(other.id for other in others)}) == 3
    assert store.by_request("train", "one", "b") == others[0]
    assert store.by_request("train", "one", "nobody") is None
    assert store.by_request("train", "") is None


def test_one_operation_at_a_time_on_a_resource(store: OperationStore) -> None:
    first = accept(store)
    with pytest.raises(AvatarBusy) as caught:
        accept(store)
    assert caught.value.fix == "viseme avatars watch avatars/ada"
    running = claimed(store)
    assert running.id == first.id
    with pytest.raises(AvatarBusy):
        accept(store)
    assert store.finish(running, b"m", response=b"r")
    second = accept(store)
    assert store.latest("avatars/ada") == second


def test_operations_outlive_the_store(open_store: OpenStore) -> None:
    first = open_store()
    accepted = accept(first)
    first.close()
    assert open_store().get(accepted.name) == accepted


def test_the_urgent_goes_first_then_what_has_waited_longest(store: OperationStore) -> None:
    wanted = [Class.TRAINING, Class.RENDER, Class.TRAINING, Class.DIALOGUE, Class.EVALUATION]
    for number, priority in enumerate((*wanted, Class.RENDER)):
        accept(store, f"avatars/a{number}", priority=priority)
    order = [claimed(store).target for _ in range(6)]
    assert order == [f"avatars/a{number}" for number in (3, 1, 5, 4, 0, 2)]
    assert store.claim(60) is None


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_changes_nothing(store: OperationStore) -> None:
    accept(store)
    slow = claimed(store, -1)
    other = claimed(store)
    assert (other.id, other.attempt) == (slow.id, 2) and other.token > slow.token
    assert store.renew(slow, 60, b"late") is None
    assert not store.finish(slow, b"late", response=b"late")
    assert not store.release(slow)
    assert store.renew(other, 60, b"half") is False
    assert store.renew(other, 60, None) is False
    assert store.get(other.name).metadata == b"half"
    assert store.claim(60) is None
    assert store.finish(other, b"end", error=b"e")
    assert not store.finish(other, b"twice", error=b"e")
    ended = store.get(other.name)
    assert (ended.state, ended.metadata, ended.error, ended.response) == ("done", b"end", b"e", None)


def test_released_operations_wait_as_long_as_asked(store: OperationStore) -> None:
    accept(store)
    record = claimed(store)
    assert store.release(record, 3600, stalls=2)
    assert store.claim(60) is None
    waiting = store.get(record.name)
    assert (waiting.state, waiting.stalls) == ("pending", 2)
    store.cancel(waiting, b"cancelled")
    accept(store)
    record = claimed(store)
    assert store.release(record)
    assert claimed(store).id == record.id


def test_cancelling(store: OperationStore) -> None:
    waiting = accept(store)
    store.cancel(waiting, b"cancelled")
    over = store.get(waiting.name)
    assert (over.state, over.error, over.ended is None) == ("done", b"cancelled", False)
    accept(store)
    running = claimed(store)
    store.cancel(running, b"cancelled")
    assert store.renew(running, 60, None) is True
    going = store.get(running.name)
    assert (going.state, going.error, going.ended, going.cancelled) == ("running", None, None, True)
    store.finish(running, b"", error=b"cancelled")
    store.cancel(store.get(running.name), b"again")
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


def test_pages(store: OperationStore) -> None:
    owners = ["", "a", "b", "a", "a"]
    records = [accept(store, f"avatars/a{number}", owner=owner) for number, owner in enumerate(owners)]
    assert [record.sequence for record in records] == sorted(record.sequence for record in records)
    store.cancel(records[3], b"")
    pages, after = [], 0
    while page := store.page(after, 2):
        pages.append([record.id for record in page])
        after = page[-1].sequence
    ids = [record.id for record in records]
    assert pages == [ids[:2], ids[2:4], ids[4:]]
    assert [record.id for record in listed(store, owner="a")] == [ids[1], ids[3], ids[4]]
    assert [record.id for record in listed(store, owner="a", done=False)] == [ids[1], ids[4]]
    assert [record.id for record in listed(store, done=True)] == [ids[3]]
    assert listed(store, owner="nobody") == []


def test_what_is_over_is_forgotten_in_time(store: OperationStore) -> None:
    first, second = done(store), done(store)
    other = [done(store, f"avatars/b{number}") for number in range(2)]
    waiting = accept(store)
    assert store.forget(3600, 100) == 0
    # All have ended a while ago, but the latest of an avatar is what it is known by.
    assert store.forget(-1, 100) == 2
    assert [record.id for record in listed(store)] == [record.id for record in (*other, waiting)]
    store.cancel(waiting, b"")
    again = done(store)
    assert store.forget(3600, 1) == 1
    assert {record.id for record in listed(store)} == {*(record.id for record in other), again.id}
    for record in (first, second):
        with pytest.raises(OperationNotFound):
            store.get(record.name)


def test_logs(store: OperationStore) -> None:
    first, second = accept(store), accept(store, "avatars/b")
    lines = [LogLine(float(number), f"line {number}") for number in range(700)]
    store.log(first, lines[:300])
    store.log(first, lines[300:])
    store.log(second, [LogLine(1.5, "Grüße: 100 %")])
    assert store.read_log(first, 3) == lines[-3:]
    assert store.read_log(first, 1000) == lines[-500:]
    assert store.read_log(second, 10) == [LogLine(1.5, "Grüße: 100 %")]
    store.cancel(first, b"")
    assert store.delete(first)
    store.log(first, lines[:1])
    assert store.read_log(first, 10) == []


def test_many_threads_claim_each_operation_once(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(2)]
    accepted: list[str] = []
    taken: list[str] = []
    ended: list[bool] = []

    def submit(store: OperationStore, first: int) -> None:
        accepted.extend(accept(store, f"avatars/a{number}").id for number in range(first, first + 20))

    def work(store: OperationStore) -> None:
        while len(ended) < 80:
            if (record := store.claim(60)) is not None:
                taken.append(record.id)
                ended.append(store.finish(record, b"", response=b""))

    threads = [threading.Thread(target=submit, args=(stores[n % 2], 20 * n)) for n in range(4)]
    threads += [threading.Thread(target=work, args=(stores[n % 2],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(accepted) and all(ended)


class Holders(RuleBasedStateMachine):
    """Whatever happens in whatever order, an operation has one holder, and no accepted one is lost."""

    open: Callable[[], OperationStore]

    @initialize()
    def begin(self) -> None:
        self.store = self.open()
        # The database of the example before.
        for record in listed(self.store):
            self.store.cancel(record, b"")
            if record.state == "running":
                self.store.finish(record, b"", error=b"")
            self.store.delete(record)
        self.accepted: dict[str, OperationRecord] = {}
        self.held: dict[str, OperationRecord] = {}
        self.expired: set[str] = set()
        self.stale: list[OperationRecord] = []
        self.done: dict[str, bytes] = {}
        self.tokens: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    @rule(target_number=st.integers(0, 3), priority=st.sampled_from(Class))
    def accept(self, target_number: int, priority: Class) -> None:
        target = f"avatars/a{target_number}"
        try:
            record = accept(self.store, target, priority=priority)
        except AvatarBusy:
            assert any(r.target == target and r.id not in self.done for r in self.accepted.values())
        else:
            self.accepted[record.id] = record

    @rule(expired=st.booleans())
    def claim(self, expired: bool) -> None:
        record = self.store.claim(-1 if expired else 3600)
        free = [r for r in self.accepted.values() if r.id not in self.done and self.is_free(r.id)]
        if record is None:
            assert not free
            return
        assert record.id == min(free, key=lambda r: (r.priority, r.sequence)).id
        former = self.held.pop(record.id, None)
        if former is not None:
            assert record.id in self.expired
            self.stale.append(former)
        assert record.token > self.tokens.get(record.id, 0)
        self.tokens[record.id] = record.token
        self.held[record.id] = record
        (self.expired.add if expired else self.expired.discard)(record.id)

    def is_free(self, identifier: str) -> bool:
        return identifier not in self.held or identifier in self.expired

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        record = self.held[data.draw(st.sampled_from(sorted(self.held)), label="id")]
        assert self.store.renew(record, 3600, b"progress") is False
        self.expired.discard(record.id)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), response=st.binary(max_size=3))
    def finish(self, data: st.DataObject, response: bytes) -> None:
        record = self.held.pop(data.draw(st.sampled_from(sorted(self.held)), label="id"))
        assert self.store.finish(record, b"", response=response)
        self.done[record.id] = response
        self.stale.append(record)

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

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = self.open()

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "store"):
            return
        stored = {record.id: record for record in listed(self.store)}
        assert set(stored) == set(self.accepted)
        for identifier, record in stored.items():
            if identifier in self.done:
                assert (record.state, record.response) == ("done", self.done[identifier])
            else:
                assert record.state == ("running" if identifier in self.held else "pending")
            assert record.metadata != b"zombie"


def test_holders(open_store: OpenStore) -> None:
    class OfThisStore(Holders):
        open = staticmethod(open_store)

    run_state_machine_as_test(
        OfThisStore,
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
