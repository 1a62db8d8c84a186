"""A person who was recorded starts with the motion of the demo avatar."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from model_hosts.talking_gaussian.bundle import Bundle  # noqa: E402
from model_hosts.talking_gaussian.preprocess.dataset import LipShape, TrainingSet, load  # noqa: E402
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid  # noqa: E402
from model_hosts.talking_gaussian.training.portrait import Portrait  # noqa: E402
from model_hosts.talking_gaussian.training.settings import Settings  # noqa: E402
from model_hosts.talking_gaussian.training.trainer import Intervals, Trainer  # noqa: E402
from model_hosts.talking_gaussian.training.transfer import (  # noqa: E402
    DEMO,
    SHORT,
    TransferUnsuitable,
    motion_for,
    recipe_for,
)
from tests.doubles import talking_head  # noqa: E402
from tests.doubles.tiny_training import CPU, TINY  # noqa: E402

pytestmark = pytest.mark.torch
OPENED = 0.006
"""Metres by which the first component of the lip code lowers the lower lip."""


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.read(DEMO)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    torch.set_num_threads(1)
    return load(talking_head.write_studio(tmp_path_factory.mktemp("cartoon") / "studio"))


@pytest.fixture(scope="module")
def person(drawn: TrainingSet) -> TrainingSet:
    """The cartoon as if it had been recorded: its lip code says what it does to landmarks."""
    around = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    middle = mouth_of(Portrait(drawn, TINY, CPU))
    points = middle + np.stack([0.03 * np.cos(around), 0.012 * np.sin(around), 0 * around], 1)
    basis = np.zeros((len(drawn.closed), len(points), 2))
    basis[0, :, 1] = -OPENED * (np.sin(around) < -0.1)
    return replace(drawn, lip_shape=LipShape(points.astype(np.float32), basis.astype(np.float32)))


@pytest.fixture(scope="module")
def started(person: TrainingSet, demo: Bundle) -> Portrait:
    return Portrait(
        person, recipe_for(replace(TINY, face=replace(TINY.face, count=600)), person, demo), CPU, demo
    )


def mouth_of(portrait: Portrait) -> np.ndarray:
    return np.median(portrait.scene.mouth.xyz.detach().numpy(), 0)


def places(portrait: Portrait, lip: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """Where the face's Gaussians are, [N, 3], driven like this."""
    scene = portrait.scene
    with torch.no_grad():
        code = scene.embed(torch.from_numpy(lip)[None].float())
        splats, _ = scene.face.deform(code, torch.from_numpy(expression)[None].float())
    return splats.means[0].numpy()


def test_in_the_key_frame_everything_is_where_it_was_seen(person: TrainingSet, started: Portrait):
    plain = Portrait(person, started.settings, CPU)
    key = person.key
    at_key = places(started, person.lip[key], person.expression[key])
    off = np.abs(at_key - plain.scene.face.xyz.detach().numpy()).max(1)
    # Between lips that part there are places from which nothing moves to where it was seen.
    assert np.median(off) < 1e-4
    assert np.quantile(off, 0.98) < 2e-3
    assert np.abs(at_key - started.scene.face.xyz.detach().numpy()).max() > 1e-4


def test_the_lip_code_moves_the_lower_lip_as_far_as_it_does_on_the_person(
    person: TrainingSet, started: Portrait
):
    closed, still = person.closed.copy(), np.zeros(person.expression.shape[1])
    open_ = closed.copy()
    open_[0] += 1
    moved = places(started, open_, still) - places(started, closed, still)
    at = places(started, closed, still) - mouth_of(started)
    lower = (np.abs(at[:, 0]) < 0.02) & (at[:, 1] < -0.004) & (at[:, 1] > -0.02)
    upper_face = at[:, 1] > 0.05
    assert lower.sum() > 5
    assert -2 * OPENED < np.median(moved[lower, 1]) < -0.3 * OPENED
    assert np.abs(moved[upper_face]).max() < 0.3 * OPENED


def test_lids_shut_where_the_eyes_of_the_person_are(person: TrainingSet, started: Portrait):
    still = np.zeros(person.expression.shape[1])
    shut = still.copy()
    lids = [name.startswith("blink") for name in person.maps.expression_names]
    shut[lids] = 3 / np.linalg.norm(person.maps.to_expression[:, lids], axis=0).mean()
    at = places(started, person.closed, still)
    moved = np.square(places(started, person.closed, shut) - at).sum(1)
    for side in (at[:, 0] < 0, at[:, 0] > 0):
        eye = (moved[side, None] * at[side]).sum(0) / moved[side].sum()
        # The cartoon's eyes are 5 pixels beside its middle and 2 above, 5.8 mm a pixel.
        assert abs(abs(eye[0]) - 0.029) < 0.012
        assert abs(eye[1] - mouth_of(started)[1] - 0.07) < 0.02


def test_a_checkpoint_of_another_start_is_not_continued(
    person: TrainingSet, started: Portrait, demo: Bundle, tmp_path: Path
):
    never = Intervals(progress=float("inf"), preview=float("inf"), checkpoint=0)
    settings = recipe_for(TINY, person, demo)
    Trainer(person, settings, CPU, None, tmp_path / "state", never, demo).run()
    Trainer(person, settings, CPU, None, tmp_path / "state", never, demo).run()
    with pytest.raises(DatasetInvalid):
        Trainer(person, settings, CPU, None, tmp_path / "state", never).run()


def test_people_start_with_the_demo_avatar(drawn: TrainingSet, person: TrainingSet, tmp_path: Path):
    found = motion_for(person)
    assert found is not None
    assert found.info.name == "demo"
    assert motion_for(person, tmp_path / "nowhere") is None
    assert motion_for(drawn) is None


def test_a_short_clip_gets_fewer_steps(person: TrainingSet, demo: Bundle):
    count = SHORT // person.count + 1
    per_frame = ("frames", "labels", "poses", "units", "lip", "track")
    long = replace(person, **{name: np.concatenate([getattr(person, name)] * count) for name in per_frame})
    recipe = Settings(mouth_steps=30, face_steps=60, fuse_steps=90)
    for data, steps in ((person, (10, 20, 30)), (long, (30, 60, 90))):
        fitting = recipe_for(recipe, data, demo)
        assert (fitting.mouth_steps, fitting.face_steps, fitting.fuse_steps) == steps
        assert fitting.face.count == recipe.face.count


def test_what_does_not_fit_is_refused(drawn: TrainingSet, person: TrainingSet, demo: Bundle):
    with pytest.raises(TransferUnsuitable, match="recorded person"):
        Portrait(drawn, recipe_for(TINY, person, demo), CPU, demo)
    with pytest.raises(TransferUnsuitable, match="size"):
        Portrait(person, replace(TINY, code=demo.info.branches["face"].code), CPU, demo)
    other = replace(demo, info=replace(demo.info, expression_names=demo.info.expression_names[::-1]))
    with pytest.raises(TransferUnsuitable, match="channels"):
        Portrait(person, recipe_for(TINY, person, demo), CPU, other)
