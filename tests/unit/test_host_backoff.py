from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.hosts.backoff import Breaker, RestartPolicy

policies = st.builds(
    RestartPolicy,
    initial=st.floats(0.001, 10),
    factor=st.floats(1, 10),
    maximum=st.floats(10, 1000),
    jitter=st.floats(0, 0.9),
    limit=st.integers(1, 20),
    window=st.floats(1, 600),
)


@given(policies, st.integers(1, 100_000), st.floats(0, 1))
def test_a_delay_is_positive_and_bounded(policy: RestartPolicy, failures: int, chance: float) -> None:
    delay = policy.delay(failures, chance)
    assert (
        policy.initial * (1 - policy.jitter) * 0.999 <= delay <= policy.maximum * (1 + policy.jitter) * 1.001
    )


@given(policies, st.integers(1, 100), st.floats(0, 1))
def test_more_failures_never_wait_less(policy: RestartPolicy, failures: int, chance: float) -> None:
    assert policy.delay(failures + 1, chance) >= policy.delay(failures, chance)


@given(policies, st.lists(st.floats(0, 300), max_size=60), st.floats(0, 1))
def test_opens_exactly_when_too_many_fall_in_the_window(
    policy: RestartPolicy, gaps: list[float], chance: float
) -> None:
    now = 0.0
    times: list[float] = []
    breaker = Breaker(policy, clock=lambda: now, chance=lambda: chance)
    for gap in gaps:
        now += gap
        times.append(now)
        recent = sum(time >= now - policy.window for time in times)
        delay = breaker.failed()
        if recent >= policy.limit:
            assert delay is None
        else:
            assert delay == policy.delay(recent, chance)


def test_reset_forgets() -> None:
    breaker = Breaker(RestartPolicy(limit=2, jitter=0), clock=lambda: 0.0)
    assert breaker.failed() == pytest.approx(0.2)
    assert breaker.failed() is None
    breaker.reset()
    assert breaker.failed() == pytest.approx(0.2)
