"""Models that load while their host already answers."""

from __future__ import annotations

import threading

import grpc
import pytest
from viseme.host.v1 import host_pb2

from model_hosts.sdk import Cancellation, Cancelled, HostError
from model_hosts.sdk import loading as loading_module
from model_hosts.sdk.loading import Loading


class Call:
    """The part of a call's context that a cancellation follows."""

    def add_callback(self, callback: object) -> bool:
        return True


def cancellation() -> Cancellation:
    return Cancellation(Call())  # type: ignore[arg-type]


def test_a_call_waits_for_the_model() -> None:
    begin = threading.Event()

    def load() -> str:
        begin.wait(5)
        return "model"

    loading = Loading("thing", load)
    threading.Timer(0.05, begin.set).start()
    assert loading.get(cancellation()) == "model"
    description = host_pb2.DescribeResponse(ready=True)
    assert loading.loaded(description) == "model"
    assert description.ready


def test_a_cancelled_call_does_not_wait() -> None:
    never = threading.Event()
    loading = Loading("thing", never.wait)
    gone = cancellation()
    gone.set()
    try:
        with pytest.raises(Cancelled):
            loading.get(gone)
    finally:
        never.set()


def test_what_is_still_loading_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading_module, "_DESCRIBE_SECONDS", 0.01)
    never = threading.Event()
    loading = Loading("thing", never.wait)
    description = host_pb2.DescribeResponse(ready=True)
    try:
        assert loading.loaded(description) is None
        assert not description.ready
        assert description.problem == "The model 'thing' is still loading."
    finally:
        never.set()


def test_a_model_that_cannot_be_loaded(caplog: pytest.LogCaptureFixture) -> None:
    def load() -> str:
        raise RuntimeError("bad magic")

    loading = Loading("thing", load)
    with pytest.raises(HostError) as raised:
        loading.get(cancellation())
    assert (raised.value.code, raised.value.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ASSET_CORRUPT")
    assert raised.value.fix == "viseme assets verify thing"
    description = host_pb2.DescribeResponse(ready=True)
    assert loading.loaded(description) is None
    assert (description.ready, description.fix) == (False, "viseme assets verify thing")
    assert "bad magic" not in description.problem
