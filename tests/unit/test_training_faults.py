"""Numbers that are not finite, too little memory, missing compilers, clips that lack parts of a person."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet, load  # noqa: E402
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid  # noqa: E402
from model_hosts.talking_gaussian.training import step as step_module  # noqa: E402
from model_hosts.talking_gaussian.training.cuda import DeviceUnsuitableError  # noqa: E402
from model_hosts.talking_gaussian.training.events import Event, Note, Outcome, StageMetrics  # noqa: E402
from model_hosts.talking_gaussian.training.rasterise import rasterise  # noqa: E402
from model_hosts.talking_gaussian.training.trainer import Trainer, TrainingDiverged  # noqa: E402
from tests.doubles import talking_head  # noqa: E402
from tests.doubles.tiny_training import CPU, GROWING, TINY  # noqa: E402

pytestmark = pytest.mark.torch
MOUTH, NECK, CLOTHES = 3, 4, 5


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return load(talking_head.write_studio(tmp_path_factory.mktemp("studio")))


class FaultyRasteriser:
    """Draws, but at some calls does what a GPU does when it is out of luck.

    Args:
        faults: What happens at which call: "nan" or "memory"; "forever" from a call on.
    """

    def __init__(self, faults: dict[int, str], forever: int | None = None) -> None:
        self.calls, self.batches = 0, list[int]()
        self._faults, self._forever = faults, forever

    def __call__(self, splats, focal, centre, size):
        self.calls += 1
        self.batches.append(len(splats.means))
        fault = self._faults.get(self.calls)
        if self._forever is not None and self.calls >= self._forever:
            fault = self._faults[self._forever]
        if fault == "memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        drawn = rasterise(splats, focal, centre, size)
        return drawn * float("nan") if fault == "nan" else drawn


def train(data, monkeypatch, rasteriser, settings=TINY) -> tuple[Trainer, list[Event]]:
    monkeypatch.setattr(step_module, "rasterise", rasteriser)
    seen: list[Event] = []
    trainer = Trainer(data, settings, CPU, seen.append)
    assert trainer.run() is Outcome.FINISHED
    return trainer, seen


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events if isinstance(event, Note)]


def finite(trainer: Trainer) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in trainer.scene.state_dict().values())


PROBES = 6
"""Looks at the three stages before the first step, two each."""


@pytest.mark.parametrize("settings", [TINY, GROWING], ids=["tiny", "growing"])
def test_numbers_that_are_not_finite_are_rolled_back_and_the_rates_halved(data, monkeypatch, settings):
    trainer, seen = train(data, monkeypatch, FaultyRasteriser({PROBES + 5: "nan"}), settings)
    assert kinds(seen) == ["rolled_back"]
    assert finite(trainer)


def test_after_three_roll_backs_a_training_stops_with_one_message(data, monkeypatch):
    monkeypatch.setattr(step_module, "rasterise", FaultyRasteriser({PROBES + 2: "nan"}, forever=PROBES + 2))
    seen: list[Event] = []
    with pytest.raises(TrainingDiverged, match="stage mouth gave numbers that are not finite"):
        Trainer(data, TINY, CPU, seen.append).run()
    assert kinds(seen) == ["rolled_back"] * 3


@pytest.mark.parametrize("call", [PROBES - 1, PROBES + 6], ids=["before the first step", "later"])
def test_when_memory_is_short_the_batch_is_halved(data, monkeypatch, call):
    rasteriser = FaultyRasteriser({call: "memory"})
    trainer, seen = train(data, monkeypatch, rasteriser, replace(TINY, batch=4))
    assert kinds(seen) == ["batch_halved"]
    assert trainer.batch == 2
    assert set(rasteriser.batches[: call - 1]) == {4}
    assert set(rasteriser.batches[call:]) == {2}
    assert finite(trainer)


def test_memory_that_does_not_take_one_frame_is_told(data, monkeypatch):
    with pytest.raises(DeviceUnsuitableError, match="too small for a single frame"):
        train(data, monkeypatch, FaultyRasteriser({1: "memory"}, forever=1))


def without(data: TrainingSet, *labels: int, becomes: int) -> TrainingSet:
    return replace(data, labels=np.where(np.isin(data.labels, labels), np.uint8(becomes), data.labels))


def test_a_person_whose_mouth_is_never_open_is_trained_without_stage_mouth(data):
    seen: list[Event] = []
    trainer = Trainer(without(data, MOUTH, becomes=1), TINY, CPU, seen.append)
    assert trainer.run() is Outcome.FINISHED
    assert "stage_skipped" in kinds(seen)
    stages = [event for event in seen if isinstance(event, StageMetrics)]
    assert [event.stage for event in stages] == ["face", "fuse"]
    assert "mouth" not in stages[-1].metrics
    assert finite(trainer)


def test_a_person_without_hair_is_trained(data):
    trainer = Trainer(without(data, 2, becomes=1), TINY, CPU)
    trainer.run()
    assert finite(trainer)


def test_a_clip_that_shows_no_neck_and_no_clothes_is_refused(data):
    with pytest.raises(DatasetInvalid, match="key frame has no depth where the person is"):
        Trainer(without(data, NECK, CLOTHES, becomes=0), TINY, CPU)


def backend(monkeypatch: pytest.MonkeyPatch, source: str, directory: Path) -> None:
    """Puts a gsplat in the path whose compiled part behaves as `source` says."""
    package = directory / "gsplat" / "cuda"
    package.mkdir(parents=True)
    (directory / "gsplat" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "_backend.py").write_text(source)
    for name in [name for name in sys.modules if name.split(".")[0] == "gsplat"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(directory))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("_C = None", "no CUDA compiler: install the CUDA toolkit"),
        ("raise RuntimeError('Error building extension: ninja')", r"compiled \(Error building extension"),
        ("raise ImportError('libcudart.so.13: cannot open')", r"loaded or compiled \(libcudart.so.13"),
    ],
    ids=["no compiler", "build fails", "library missing"],
)
def test_a_gsplat_that_cannot_draw_is_told_before_the_first_step(
    data, monkeypatch, tmp_path, source, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    backend(monkeypatch, source, tmp_path)
    with pytest.raises(DeviceUnsuitableError, match=message):
        Trainer(data, TINY, torch.device("cuda"))


def test_a_machine_without_gpu_or_without_gsplat_is_told(data, monkeypatch):
    with pytest.raises(DeviceUnsuitableError, match="no NVIDIA GPU"):
        Trainer(data, TINY, torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "gsplat", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DeviceUnsuitableError, match="pip install gsplat"):
        Trainer(data, TINY, torch.device("cuda"))
