"""A training that was killed, stopped or left with damaged files goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet, load  # noqa: E402
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid  # noqa: E402
from model_hosts.talking_gaussian.training import trainer as trainer_module  # noqa: E402
from model_hosts.talking_gaussian.training.checkpoint import previous  # noqa: E402
from model_hosts.talking_gaussian.training.events import Event, Note, Outcome, Progress  # noqa: E402
from model_hosts.talking_gaussian.training.lock import TrainingBusy, TrainingLock  # noqa: E402
from model_hosts.talking_gaussian.training.trainer import Intervals, Trainer  # noqa: E402
from tests.doubles import talking_head  # noqa: E402
from tests.doubles.disk import room_for  # noqa: E402
from tests.doubles.tiny_training import CPU, EACH_STEP, GROWING  # noqa: E402

pytestmark = pytest.mark.torch
NOISE = 1e-6


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_head.write_studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def data(recording: Path) -> TrainingSet:
    return load(recording)


@pytest.fixture(scope="module")
def whole(data: TrainingSet) -> dict[str, torch.Tensor]:
    """What comes out when nobody interferes."""
    trainer = Trainer(data, GROWING, CPU)
    assert trainer.run() is Outcome.FINISHED
    return trainer.scene.state_dict()


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


class Log(list[Event]):
    """Events of a run; `after` steps a stop is asked for."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__()
        self._after = after

    def stop(self) -> bool:
        return self._after is not None and len(self.progress) >= self._after

    @property
    def progress(self) -> list[Progress]:
        return [event for event in self if isinstance(event, Progress)]

    @property
    def notes(self) -> dict[str, str]:
        return {event.kind: event.message for event in self if isinstance(event, Note)}


def run(data: TrainingSet, path: Path, after: int | None = None) -> tuple[Trainer, Log, Outcome]:
    log = Log(after)
    trainer = Trainer(data, GROWING, CPU, log.append, path, EACH_STEP)
    return trainer, log, trainer.run(log.stop)


def child(*arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.doubles.tiny_training", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, object]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith("\n"):
            yield json.loads(line)


def test_killed_again_and_again_it_gives_the_same_avatar_and_loses_at_most_a_step(
    recording: Path, whole: dict[str, torch.Tensor], tmp_path: Path
):
    chance = random.Random(7)
    path, result = tmp_path / "state", tmp_path / "scene.safetensors"
    reached = 0
    for attempt in range(3):
        process = child(recording, path, result)
        steps = 0
        limit = chance.randint(2, 6)
        for event in events(process):
            if event["event"] == "progress":
                # The state after a step is kept before the step is told, so nothing that was told is lost.
                assert event["done"] in ((reached + 1, reached + 2) if steps == 0 else (reached + 1,))
                reached = int(str(event["done"]))
                steps += 1
            if event["event"] == "note":
                assert (event["kind"], attempt > 0) == ("resumed", True)
            if steps == limit:
                break
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert process.stdout is not None
        process.stdout.close()
    assert 0 < reached < 19
    process = child(recording, path, result)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert difference(load_file(result), whole) < NOISE


@pytest.mark.parametrize("after", [2, 9, 16])
def test_a_stop_ends_at_the_next_step_and_can_be_gone_on_from(
    data: TrainingSet, whole: dict[str, torch.Tensor], tmp_path: Path, after: int
):
    path = tmp_path / "state"
    _, log, outcome = run(data, path, after)
    assert outcome is Outcome.STOPPED
    assert log.progress[-1].done == after
    trainer, log, outcome = run(data, path)
    assert outcome is Outcome.FINISHED
    assert "resumed" in log.notes
    assert log.progress[0].done == after + 1
    assert difference(trainer.scene.state_dict(), whole) < NOISE


def test_no_more_than_thirty_seconds_of_work_are_ever_unsaved(
    data: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, clock, step_seconds = tmp_path / "state", [0.0], 7.0
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    saved, files = [0.0], set[int]()

    def a_step_passes() -> bool:
        if path.exists() and (file := path.stat().st_mtime_ns) not in files:
            files.add(file)
            saved.append(clock[0])
        clock[0] += step_seconds
        return False

    Trainer(data, GROWING, CPU, None, path).run(a_step_passes)
    assert len(saved) > 5
    assert max(later - earlier for earlier, later in pairwise(saved)) <= 20 + step_seconds


def test_the_state_is_kept_at_the_end_of_each_stage(data: TrainingSet, tmp_path: Path):
    path = tmp_path / "state"
    log = Log()
    seldom = Intervals(progress=0, preview=float("inf"), checkpoint=3600)
    Trainer(data, GROWING, CPU, log.append, path, seldom).run(path.exists)
    assert (log.progress[-1].stage, log.progress[-1].step) == ("mouth", GROWING.mouth_steps)


@pytest.fixture(scope="module")
def kept(data: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the state after six steps and the one before."""
    directory = tmp_path_factory.mktemp("kept")
    run(data, directory / "state", after=6)
    return directory


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped":
        middle = len(content) * 3 // 4
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 64]) + content[middle + 1 :])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "missing"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(
    data: TrainingSet, kept: Path, tmp_path: Path, how: str
):
    path = Path(shutil.copytree(kept, tmp_path / "kept")) / "state"
    damage(path, how)
    _, log, _ = run(data, path, after=1)
    assert "state" in log.notes["checkpoint_damaged"]
    assert log.progress[0].done == 7  # the stop wrote the state after step 6 again


def test_two_damaged_checkpoints_are_told_and_the_training_starts_anew(
    data: TrainingSet, kept: Path, tmp_path: Path
):
    path = Path(shutil.copytree(kept, tmp_path / "kept")) / "state"
    damage(path, "cut")
    damage(previous(path), "flipped")
    _, log, _ = run(data, path, after=1)
    assert {"checkpoint_damaged", "started_anew"} <= log.notes.keys()
    assert log.progress[0].done == 1


def test_a_full_disk_leaves_the_old_checkpoint_and_is_told_once(
    data: TrainingSet, kept: Path, tmp_path: Path
):
    path = Path(shutil.copytree(kept, tmp_path / "kept")) / "state"
    before = path.read_bytes()
    log = Log()
    trainer = Trainer(data, GROWING, CPU, log.append, path, EACH_STEP)
    with room_for(10_000):
        assert trainer.run() is Outcome.FINISHED
    failures = [event for event in log if isinstance(event, Note) and event.kind == "checkpoint_failed"]
    assert len(failures) == 1
    assert "state cannot be written" in failures[0].message
    assert path.read_bytes() == before
    assert not path.with_name("state.new").exists()


def test_a_checkpoint_of_another_training_is_refused_by_name(data: TrainingSet, kept: Path, tmp_path: Path):
    path = Path(shutil.copy(kept / "state", tmp_path / "mira.state"))
    with pytest.raises(
        DatasetInvalid, match=r"mira\.state belongs to a training with other data or settings"
    ):
        Trainer(data, replace(GROWING, seed=9), CPU, None, path).run()


def test_a_second_training_of_the_same_output_is_refused_while_the_first_lives(
    recording: Path, data: TrainingSet, tmp_path: Path
):
    path = tmp_path / "state"
    process = child(recording, path, tmp_path / "result")
    next(event for event in events(process) if event["event"] == "progress")
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(TrainingBusy, match=f"state is being trained by process {process.pid}"):
        Trainer(data, GROWING, CPU, None, path).run()
    process.kill()
    process.communicate()
    assert path.with_name("state.lock").exists()  # a killed process leaves the file, but not the lock
    with TrainingLock(path):
        pass
    assert not path.with_name("state.lock").exists()
