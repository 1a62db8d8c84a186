"""Rates and counts, with a clock of the test's own."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.access.rates import Allowance, Bucket
from server.error_status import to_status
from server.errors import RateLimited, TooManyCalls


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 100),
    pauses=st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_never_more_than_burst_and_rate(rate: float, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    bucket = Bucket(rate, burst, clock)
    let_through = 0
    for pause in pauses:
        clock.now += pause
        wait = bucket.take()
        assert wait >= 0
        let_through += not wait
        assert let_through <= burst + rate * clock.now + 1e-6


@given(rate=st.floats(0.1, 1000), burst=st.integers(1, 20))
def test_whoever_waits_as_long_as_told_is_let_through(rate: float, burst: int) -> None:
    clock = Clock()
    bucket = Bucket(rate, burst, clock)
    while not (wait := bucket.take()):
        pass
    clock.now += wait * (1 + 1e-9) + 1e-9
    assert not bucket.take()


def test_tokens_do_not_share_a_rate_and_the_refusal_says_when() -> None:
    clock = Clock()
    allowance = Allowance(rate=2, burst=1, most_calls=10, clock=clock)
    with allowance.admit("acme", "one"), allowance.admit("acme", "two"):
        pass
    with pytest.raises(RateLimited) as caught, allowance.admit("acme", "one"):
        pass
    assert caught.value.retry_seconds == pytest.approx(0.5)
    assert to_status(caught.value).code.name == "RESOURCE_EXHAUSTED"


def test_tenants_do_not_share_a_count() -> None:
    allowance = Allowance(rate=1000, burst=1000, most_calls=2)
    with ExitStack() as stack:
        stack.enter_context(allowance.admit("acme", "one"))
        stack.enter_context(allowance.admit("acme", "two"))
        with pytest.raises(TooManyCalls), allowance.admit("acme", "three"):
            pass
        with allowance.admit("other", "four"):
            pass
    with allowance.admit("acme", "one"):
        pass
