"""The time that a training still takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_hosts.talking_gaussian.training.pace import Pace


def test_each_stage_counts_at_its_own_speed():
    pace = Pace({"mouth": 100, "face": 200, "fuse": 50})
    for stage, seconds in {"mouth": 0.1, "face": 1.0, "fuse": 2.0}.items():
        pace.measured(stage, seconds)
    pace.begin("mouth", 0.0)
    assert pace.left(0) == pytest.approx(100 * 0.1 + 200 + 100)
    for step in range(10):
        pace.tick(0.2 * (step + 1))
    assert pace.left(10) == pytest.approx(90 * 0.2 + 200 + 100)
    pace.ended(3.0)
    pace.begin("face", 100.0)
    assert pace.left(0) == pytest.approx(200 + 100 + 2 * 3)


def test_a_speed_that_changes_is_followed():
    pace = Pace({"fuse": 1000})
    pace.begin("fuse", 0.0)
    now = 0.0
    for step in range(200):
        now += 1.0 if step < 100 else 0.1
        pace.tick(now)
    assert pace.left(200) == pytest.approx(800 * 0.1)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(1e-3, 10)), min_size=1, max_size=3),
)
def test_an_even_training_is_foretold_from_its_first_step(stages: list[tuple[int, float]]):
    names = ("mouth", "face", "fuse")[: len(stages)]
    pace = Pace({name: steps for name, (steps, _) in zip(names, stages, strict=True)})
    for name, (_, seconds) in zip(names, stages, strict=True):
        pace.measured(name, seconds)
    now, total = 0.0, sum(steps * seconds for steps, seconds in stages)
    for name, (steps, seconds) in zip(names, stages, strict=True):
        pace.begin(name, now)
        for step in range(steps):
            assert now + pace.left(step) == pytest.approx(total, rel=1e-6)
            now += seconds
            pace.tick(now)
    assert pace.left(stages[-1][0]) == 0
