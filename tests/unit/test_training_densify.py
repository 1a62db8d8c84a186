"""Growth and pruning: budgets, moments that follow their Gaussians, pictures that stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from model_hosts.talking_gaussian.training.densify import Densifier, double  # noqa: E402
from model_hosts.talking_gaussian.training.initialise import Start  # noqa: E402
from model_hosts.talking_gaussian.training.optimiser import (  # noqa: E402
    make_optimiser,
    moments,
    restore_moments,
)
from model_hosts.talking_gaussian.training.rasterise import Splats, rasterise  # noqa: E402
from model_hosts.talking_gaussian.training.scene import Scene, Shape  # noqa: E402
from model_hosts.talking_gaussian.training.settings import Growth  # noqa: E402
from tests.doubles.tiny_training import TINY  # noqa: E402

pytestmark = pytest.mark.torch
NAMES = ("face", "mouth", "torso")
FOCAL, SIZE, DEPTH = 90.0, 48, 1.2
SHAPE = Shape(3, 4, FOCAL, (SIZE / 2, SIZE / 2), (SIZE / 2, SIZE))
PIXELS = dict.fromkeys(NAMES, DEPTH / FOCAL)
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def scene(counts: dict[str, int], seed: int) -> Scene:
    """Random Gaussians, dense enough to hide what is behind; each has its number as the first colour."""
    rng = np.random.default_rng(seed)
    starts = {}
    for name, count in counts.items():
        xyz = np.c_[rng.uniform(-0.25, 0.25, (count, 2)), rng.uniform(DEPTH, 1.1 * DEPTH, count)]
        rgb = np.c_[np.arange(count), rng.uniform(0, 1, (count, 2))]
        size = np.exp(rng.uniform(np.log(0.004), np.log(0.05), count))
        starts[name] = Start(*(value.astype(np.float32) for value in (xyz, rgb, size)))
    out = Scene(starts, SHAPE, TINY)
    with torch.no_grad():
        for branch in out.branches.values():
            generator = torch.Generator().manual_seed(seed)
            branch.opacity_logit.normal_(0, 3, generator=generator)
            branch.log_scale += 0.5 * torch.randn(branch.log_scale.shape, generator=generator)
            branch.quat += 0.5 * torch.randn(branch.quat.shape, generator=generator)
    return out


def optimiser_with_numbers(model: Scene) -> torch.optim.Optimizer:
    """Every row of every Gaussian's moments holds its number plus one."""
    optimiser = make_optimiser(model, NAMES, TINY.rates)
    for group in optimiser.param_groups:
        for value in group["params"]:
            value.grad = torch.zeros_like(value)
    optimiser.step()
    for branch in model.branches.values():
        for value in branch.rows.values():
            number = torch.arange(1, branch.count + 1.0).reshape(-1, *[1] * (value.ndim - 1))
            for part in ("exp_avg", "exp_avg_sq"):
                optimiser.state[value][part] = number.expand_as(value).clone()
    return optimiser


def pulled(model: Scene, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    count = sum(branch.count for branch in model.branches.values())
    means = torch.full((2, count, 3), DEPTH)
    return means, torch.randn(means.shape, generator=torch.Generator().manual_seed(seed)).clamp_min(0)


counts = st.fixed_dictionaries({name: st.integers(1, 40) for name in NAMES})
budgets = st.fixed_dictionaries({name: st.integers(1, 70) for name in NAMES})


@quick
@given(counts, budgets, st.integers(0, 1000), st.integers(1, 4))
def test_branches_never_grow_beyond_their_budget(first, budget, seed, every):
    model = scene(first, seed)
    optimiser = optimiser_with_numbers(model)
    growth = Growth(**budget, every=every, first=0.1, last=0.9)
    densifier = Densifier(model, NAMES, growth, 20, TINY.faded, PIXELS)
    for step in range(1, 21):
        densifier.watch(*pulled(model, step), FOCAL)
        before = {name: branch.count for name, branch in model.branches.items()}
        densifier.act(step, optimiser)
        for name, branch in model.branches.items():
            assert 1 <= branch.count <= max(budget[name], before[name])
            assert all(len(value) == branch.count for value in branch.rows.values())
            assert len(branch.first_rgb) == branch.count


def test_those_pulled_most_become_two_until_the_budget_is_reached():
    model = scene(dict.fromkeys(NAMES, 20), 2)
    with torch.no_grad():
        for branch in model.branches.values():
            branch.opacity_logit.fill_(2.0)
    densifier = Densifier(model, NAMES, Growth(30, 40, 20, every=5, first=0, last=1), 10, TINY.faded, PIXELS)
    optimiser = optimiser_with_numbers(model)
    for step in range(1, 11):
        means = torch.full((2, sum(branch.count for branch in model.branches.values()), 3), DEPTH)
        gradient = torch.zeros_like(means)
        gradient[:, 3:8, 0] = 1.0  # five of the face
        if step <= 5:
            gradient[:, 20:, 1] = 0.1  # mouth and torso
        densifier.watch(means, gradient, FOCAL)
        densifier.act(step, optimiser)
        if step == 5:
            assert sorted(model.face.rgb.detach()[20:, 0].tolist()) == [3, 4, 5, 6, 7]
    assert {name: branch.count for name, branch in model.branches.items()} == {
        "face": 30,
        "mouth": 30,
        "torso": 20,
    }


@quick
@given(counts, st.integers(0, 1000))
def test_moments_follow_their_gaussians(first, seed):
    model = scene(first, seed)
    optimiser = optimiser_with_numbers(model)
    densifier = Densifier(model, NAMES, Growth(60, 60, 60, every=1, first=0, last=1), 6, TINY.faded, PIXELS)
    for step in range(1, 6):
        densifier.watch(*pulled(model, seed + step), FOCAL)
        densifier.act(step, optimiser)
    learnt = {id(value) for group in optimiser.param_groups for value in group["params"]}
    for branch in model.branches.values():
        number = branch.rgb.detach()[:, 0] + 1
        assert torch.equal(branch.first_rgb, branch.rgb)
        fresh = None
        for value in branch.rows.values():
            assert id(value) in learnt
            for part in ("exp_avg", "exp_avg_sq"):
                rows = (
                    optimiser.state[value][part].flatten(1)
                    if value.ndim > 1
                    else optimiser.state[value][part][:, None]
                )
                fresh = rows[:, 0] == 0 if fresh is None else fresh
                assert torch.equal(rows, torch.where(fresh, 0, number)[:, None].expand_as(rows))
        # Of the two that one became, one keeps its moments.
        kept = number[~fresh]
        assert len(kept.unique()) == len(kept)


def test_state_and_moments_come_back_by_name():
    model = scene(dict.fromkeys(NAMES, 12), 1)
    optimiser = optimiser_with_numbers(model)
    growth = Growth(20, 20, 20, every=5)
    densifier = Densifier(model, NAMES, growth, 20, TINY.faded, PIXELS)
    densifier.watch(*pulled(model, 3), FOCAL)
    again = make_optimiser(model, NAMES, TINY.rates)
    restore_moments(again, model, moments(optimiser, model))
    assert moments(again, model).keys() == moments(optimiser, model).keys()
    assert all(
        torch.equal(value, moments(again, model)[name]) for name, value in moments(optimiser, model).items()
    )
    fresh = Densifier(model, NAMES, growth, 20, TINY.faded, PIXELS)
    fresh.restore(densifier.state())
    assert all(torch.equal(value, fresh.state()[name]) for name, value in densifier.state().items())


def picture(model: Scene) -> torch.Tensor:
    """The torso's Gaussians as they lie, with their second colours."""
    branch = model.torso
    splats = Splats(
        branch.xyz[None],
        torch.nn.functional.normalize(branch.quat, dim=-1)[None],
        branch.log_scale.exp()[None],
        torch.sigmoid(branch.opacity_logit)[None],
        branch.rgb[None, :, 1:],
    )
    with torch.no_grad():
        return rasterise(splats, FOCAL, SHAPE.centre, (SIZE, SIZE))[0]


@pytest.mark.parametrize("pixels", [0.0, 1e9], ids=["split", "cloned"])
@pytest.mark.parametrize("seed", range(4))
def test_a_picture_hardly_changes_when_gaussians_become_two(seed, pixels):
    model = scene({"face": 2, "mouth": 2, "torso": 150}, seed)
    before = picture(model)
    chosen = torch.arange(0, 150, 3)
    double(model.torso, make_optimiser(model, NAMES, TINY.rates), chosen, pixels + 1e-9)
    after = picture(model)
    assert model.torso.count == 200
    change = float(((after - before) ** 2).mean())
    model.torso.take(torch.tensor(sorted(set(range(200)) - set(range(150, 200)) - set(chosen.tolist()))))
    without = float(((picture(model) - before) ** 2).mean())
    # A third of the Gaussians became two; leaving them out shows how much of the picture they are.
    assert change < 0.02 * without
    assert change < 1e-3


def test_a_gaussian_alone_covers_as_much_as_the_two_it_becomes():
    for split_size in (1e-9, 1e9):
        model = scene({"face": 1, "mouth": 1, "torso": 1}, 5)
        with torch.no_grad():
            model.torso.xyz[:] = torch.tensor([[0.0, 0.0, DEPTH]])
            model.torso.log_scale[:] = torch.tensor([[-3.6, -3.0, -4.0]])
            model.torso.opacity_logit[:] = 1.4
            model.torso.quat[:] = torch.tensor([[1.0, 0, 0, 0]])  # foreshortened it would be a little more
        before = picture(model)[-1].sum()
        double(model.torso, make_optimiser(model, NAMES, TINY.rates), torch.tensor([0]), split_size)
        assert picture(model)[-1].sum() == pytest.approx(float(before), rel=0.03)
