from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.llm.breaker import Breaker
from server.llm.provider import ProviderFailed

ILL = ProviderFailed("answered with status 500")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def failing(breaker: Breaker, failure: ProviderFailed) -> None:
    ticket = breaker.admit(insist=True)
    assert ticket is not None
    breaker.failed(ticket, failure)


def test_opens_after_failures_in_a_row_and_one_question_finds_out() -> None:
    clock = Clock()
    breaker = Breaker(2, 30, clock)
    failing(breaker, ILL)
    breaker.succeeded()
    failing(breaker, ILL)
    assert breaker.admit() is not None
    failing(breaker, ILL)
    assert breaker.admit() is None and breaker.remaining == 30
    # There is nobody else: better ask it than nobody.
    assert breaker.admit(insist=True) is not None
    clock.now += 30
    probe = breaker.admit()
    assert probe is not None
    assert breaker.admit() is None
    breaker.abandoned(probe)
    probe = breaker.admit()
    assert probe is not None
    breaker.failed(probe, ILL)
    assert breaker.admit() is None
    clock.now += 30
    assert breaker.admit() is not None
    breaker.succeeded()
    assert breaker.admit() is not None and breaker.admit() is not None


def test_a_service_that_asks_to_be_left_alone_is() -> None:
    clock = Clock()
    breaker = Breaker(2, 30, clock)
    failing(breaker, ProviderFailed("is over its rate limit", retry_after=120))
    assert breaker.admit() is None and breaker.admit(insist=True) is None
    clock.now += 119.9
    assert breaker.admit(insist=True) is None
    clock.now += 0.2
    assert breaker.admit() is not None


def test_a_refused_key_opens_at_once_and_for_longer() -> None:
    clock = Clock()
    breaker = Breaker(2, 30, clock)
    failing(breaker, ProviderFailed("refused the key (401)", lasting=True))
    clock.now += 31
    assert breaker.admit() is None
    clock.now += 300
    assert breaker.admit() is not None


def test_questions_that_are_refused_say_nothing_about_the_service() -> None:
    breaker = Breaker(1, 30, Clock())
    for _ in range(5):
        failing(breaker, ProviderFailed("stopped early (content_filter)", counts=False))
    assert breaker.admit() is not None


@given(st.lists(st.sampled_from(["ask", "fail", "succeed", "leave", "wait"]), max_size=60))
def test_at_most_one_probe_and_never_shut_for_good(steps: list[str]) -> None:
    clock = Clock()
    breaker = Breaker(2, 30, clock)
    held = []
    for step in steps:
        shut = breaker.remaining > 0
        if step == "ask":
            ticket = breaker.admit()
            assert not (shut and ticket)
            if ticket is not None:
                held.append(ticket)
        elif step == "wait":
            clock.now += 31
        elif held:
            ticket = held.pop(0)
            if step == "fail":
                breaker.failed(ticket, ILL)
            elif step == "succeed":
                breaker.succeeded()
            else:
                breaker.abandoned(ticket)
    for ticket in held:
        breaker.abandoned(ticket)
    clock.now += 31
    assert breaker.admit() is not None
