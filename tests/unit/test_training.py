"""The trainer on a cartoon: parity with inference, learning, determinism, resuming, storing."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from model_hosts.talking_gaussian.bundle import Bundle  # noqa: E402
from model_hosts.talking_gaussian.driving.idle import IdleMotion  # noqa: E402
from model_hosts.talking_gaussian.driving.units import UNIT_INDEX  # noqa: E402
from model_hosts.talking_gaussian.images import decode_png  # noqa: E402
from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput  # noqa: E402
from model_hosts.talking_gaussian.model.pose import view_of_pose  # noqa: E402
from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet, load  # noqa: E402
from model_hosts.talking_gaussian.preprocess.idle import Idle  # noqa: E402
from model_hosts.talking_gaussian.training import __main__ as command  # noqa: E402
from model_hosts.talking_gaussian.training.evaluate import evaluate  # noqa: E402
from model_hosts.talking_gaussian.training.events import Event, Preview, Progress, StageMetrics  # noqa: E402
from model_hosts.talking_gaussian.training.export import Card, export_bundle  # noqa: E402
from model_hosts.talking_gaussian.training.sheets import contact_sheet, telling_frames  # noqa: E402
from model_hosts.talking_gaussian.training.trainer import Intervals, Trainer  # noqa: E402
from tests.doubles import talking_head  # noqa: E402
from tests.doubles.tiny_training import CPU, EACH_STEP, GROWING, TINY  # noqa: E402

pytestmark = pytest.mark.torch
CARD = Card("tiny", "Tiny", "A cartoon.", True, "CC0-1.0", "nobody")


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
def trained(data: TrainingSet) -> Trainer:
    trainer = Trainer(data, replace(TINY, face_steps=25, fuse_steps=25), CPU)
    trainer.run()
    return trainer


def test_training_makes_the_picture_better(data: TrainingSet, trained: Trainer):
    before = evaluate(Trainer(data, TINY, CPU), data.held_out)
    after = evaluate(trained, data.held_out)
    assert after["psnr"] > before["psnr"] + 0.3
    assert after["mouth"] > 5
    regions = {"psnr", "head", "lips", "mouth", "torso"}
    assert set(after) == {*regions, "ssim", "head_sharpness", "lips_sharpness"}
    assert 0 < after["head_sharpness"] < 2


def test_a_seed_gives_one_avatar_and_another_seed_another(data: TrainingSet):
    states = []
    for seed in (3, 3, 4):
        trainer = Trainer(data, replace(TINY, seed=seed), CPU)
        trainer.run()
        states.append(trainer.scene.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["face.rgb"], states[2]["face.rgb"])


def test_training_learns_smaller_pictures_if_the_recipe_says_so(data: TrainingSet):
    trainer = Trainer(data, replace(TINY, width=48), CPU)
    trainer.run()
    assert trainer.data.size == (48, 48)
    drive = trainer.frames.drive(torch.tensor([0]))
    assert trainer.picture(drive).shape == (1, 3, 48, 48)
    assert evaluate(trainer, data.held_out)["psnr"] > 12


def test_the_time_that_a_cpu_needs_grows_with_what_it_does():
    usual = TINY.cpu_minutes((64, 64), 2)
    assert TINY.cpu_minutes((64, 64), 1) > usual
    assert TINY.cpu_minutes((128, 128), 2) > usual
    assert replace(TINY, width=64).cpu_minutes((128, 128), 2) == pytest.approx(usual)
    assert TINY.with_steps(22).cpu_minutes((64, 64), 2) == pytest.approx(2 * usual, rel=0.2)


def test_progress_tells_stages_steps_and_time_left(data: TrainingSet):
    seen: list[Event] = []
    Trainer(data, TINY, CPU, seen.append, None, EACH_STEP).run()
    progress = [event for event in seen if isinstance(event, Progress)]
    assert [(at.stage, at.step, at.steps) for at in progress] == [
        (stage, step + 1, steps)
        for stage, steps in (("mouth", 3), ("face", 4), ("fuse", 4))
        for step in range(steps)
    ]
    assert [at.done for at in progress] == list(range(1, 12))
    assert progress[-1].fraction == 1
    assert all(at.seconds_left > 0 for at in progress[:-1])
    assert progress[-1].seconds_left < progress[0].seconds_left
    assert all(np.isfinite([at.loss, at.psnr]).all() for at in progress)


def test_each_stage_tells_how_well_it_ended(data: TrainingSet):
    seen: list[Event] = []
    Trainer(data, TINY, CPU, seen.append).run()
    ends = [event for event in seen if isinstance(event, StageMetrics)]
    assert [end.stage for end in ends] == ["mouth", "face", "fuse"]
    assert [set(end.metrics) for end in ends] == [
        {"mouth"},
        {"psnr", "head", "lips"},
        {"psnr", "head", "lips", "mouth"},
    ]
    assert all(5 < value < 60 for end in ends for value in end.metrics.values())
    assert ends[0].gaussians == {"face": 90, "mouth": 20, "torso": 40}
    assert all(end.seconds > 0 for end in ends)


def test_previews_show_one_held_out_frame_beside_its_truth(data: TrainingSet):
    seen: list[Event] = []
    trainer = Trainer(data, TINY, CPU, seen.append, None, Intervals(math.inf, 0, math.inf))
    trainer.run()
    previews = [event for event in seen if isinstance(event, Preview)]
    assert len(previews) == 11
    assert len({event.frame for event in previews}) == 1
    last = previews[-1]
    assert last.frame in data.held_out
    assert (last.picture.dtype, last.picture.shape) == (np.uint8, (64, 128, 3))
    np.testing.assert_array_equal(last.picture[:, :64], data.frames[last.frame])
    drawn = trainer.picture(trainer.frames.drive(torch.tensor([last.frame])))[0]
    assert np.abs(last.picture[:, 64:] / 255 - drawn.permute(1, 2, 0).numpy()).max() < 0.003


def test_a_learnt_plate_comes_nearer_to_the_truth_and_into_the_bundle(data: TrainingSet, tmp_path: Path):
    wrong = replace(data, plate=(data.plate // 2).astype(np.uint8))
    settings = replace(TINY, learn_plate=True, rates=replace(TINY.rates, plate=0.05))
    trainer = Trainer(wrong, settings, CPU)
    trainer.run()
    export_bundle(trainer, CARD, {}, tmp_path / "avatar")
    plate = Bundle.read(tmp_path / "avatar").background
    seen = (data.labels[data.training] == 0).any(0)

    def error(picture: np.ndarray) -> float:
        return float(np.abs(picture[seen].astype(float) - data.plate[seen]).mean())

    assert error(plate) < 0.8 * error(wrong.plate)


def test_the_bundle_moves_like_the_scene_it_was_made_from(
    data: TrainingSet, trained: Trainer, tmp_path: Path
):
    with torch.no_grad():  # far from zero, so that every output of every network counts
        for branch in trained.scene.branches.values():
            branch.net.out.weight.copy_(
                torch.randn(branch.net.out.weight.shape, generator=torch.Generator().manual_seed(1)) * 0.3
            )
    export_bundle(trained, CARD, {}, tmp_path / "avatar")
    bundle = Bundle.read(tmp_path / "avatar")
    frames = trained.frames
    deformer = Deformer(bundle, tolerance=0)
    workspace = deformer.workspace()
    vectors = data.pose_statistics.vectors(data.poses)
    for index in (0, 7, 23):
        drive = frames.drive(torch.tensor([index]))
        track = np.array([1.5, -2.0, 0.02, 0.03], np.float32)
        condition = np.concatenate(
            [vectors[index] / data.pose_statistics.std, track / bundle.tensor("track.std")]
        )
        drive = drive._replace(
            track=torch.from_numpy(track)[None],
            condition=torch.from_numpy(condition.astype(np.float32))[None],
        )
        with torch.no_grad():
            splats, _ = trained.scene(drive, ("face", "mouth", "torso"))
        posed = deformer.pose(
            FrameInput(data.lip[index], data.expression[index], vectors[index], track), workspace
        )
        start = 0
        for segment_name, order in deformer.order.items():
            columns = slice(start, start + len(order))
            start += len(order)
            planes = posed.planes[:, columns]
            segment = next(part for part in posed.segments if part.start <= columns.start < part.stop)
            view = segment.view
            offset = sum(
                trained.scene.branches[name].count
                for name in ("face", "mouth", "torso")[: ("face", "mouth", "torso").index(segment_name)]
            )
            chosen = torch.from_numpy(order) + offset
            means = view[:, :3] @ planes[0:3] + view[:, 3:]
            np.testing.assert_allclose(means.T, splats.means[0, chosen], atol=3e-5)
            np.testing.assert_allclose(planes[3:6].T, splats.scales[0, chosen], rtol=5e-3, atol=1e-6)
            np.testing.assert_allclose(np.exp(planes[10]), splats.opacities[0, chosen], atol=3e-3)
            np.testing.assert_allclose(planes[11:14].T, splats.colours[0, chosen, :3], atol=3e-3)


def test_drivers_of_the_same_lip_code_survive_a_new_training(trained: Trainer, tmp_path: Path):
    path = tmp_path / "avatar"
    export_bundle(trained, CARD, {}, path)
    bundle = Bundle.read(path)
    tensors = {**bundle.tensors, "audio.weight": np.ones((2, 3), np.float32)}
    info = replace(bundle.info, drivers={**bundle.info.drivers, "audio": {"taps": 5}})
    Bundle(info, tensors, bundle.background, bundle.thumbnail).write(path)
    export_bundle(trained, CARD, {}, path)
    again = Bundle.read(path)
    assert again.info.drivers["audio"] == {"taps": 5}
    assert again.tensor("audio.weight").shape == (2, 3)


def test_a_recorded_person_keeps_the_idle_motion_in_the_bundle(data: TrainingSet, tmp_path: Path):
    units = np.full((20, 52), 0.1, np.float32)
    units[9:12, UNIT_INDEX["eyeBlinkLeft"]] = 0.9
    idle = Idle(data.poses[5:25], units, data.track[5:25])
    trainer = Trainer(replace(data, idle=idle), TINY, CPU)
    motion = IdleMotion.of(export_bundle(trainer, CARD, {}, tmp_path / "avatar"))
    assert motion is not None
    mean = data.pose_statistics.mean
    views = np.stack([view_of_pose(mean, pose) for pose in motion.pose])
    np.testing.assert_allclose(views, data.poses[5:25, :3], atol=1e-5)
    np.testing.assert_allclose(motion.track, data.track[5:25])
    np.testing.assert_allclose(motion.units, 0.1, atol=1e-6)
    assert IdleMotion.of(Bundle.read(tmp_path / "avatar")) is not None
    assert IdleMotion.of(export_bundle(Trainer(data, TINY, CPU), CARD, {}, tmp_path / "drawn")) is None


def test_the_contact_sheet_shows_six_frames(data: TrainingSet, trained: Trainer):
    sheet = contact_sheet(trained, telling_frames(data))
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 6 * talking_head.SIZE


def test_a_mouth_that_is_never_seen_open_gives_no_nan(data: TrainingSet):
    labels = data.labels.copy()
    shown = data.training[np.argmax(data.opening[data.training])]
    keep = labels[shown] == 3
    labels[labels == 3] = 1
    labels[shown][keep] = 3
    trainer = Trainer(replace(data, labels=labels), TINY, CPU)
    trainer.run()
    assert all(torch.isfinite(value).all() for value in trainer.scene.state_dict().values())
    assert "mouth" not in evaluate(trainer, data.held_out)


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(command.PRESETS, "quick", GROWING)


def arguments(recording: Path, out: Path) -> list[str]:
    options = {"dataset": recording, "out": out, "name": "tiny", "preset": "quick", "device": "cpu"}
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


@pytest.mark.usefixtures("tiny_preset")
def test_the_command_writes_bundle_and_sheet(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    options = [
        *arguments(recording, tmp_path / "a.zip"),
        "--synthetic",
        "--sheet",
        str(tmp_path / "sheet.png"),
    ]
    assert command.main(options) == 0
    info = Bundle.read(tmp_path / "a.zip").info
    assert info.synthetic
    assert info.training["metrics"]["psnr"] > 5
    assert info.branches["face"].count > GROWING.face.count
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    captured = capsys.readouterr()
    assert "fuse 8/8" in captured.err
    assert captured.out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "sheet.png"}  # no state, no lock


@pytest.mark.usefixtures("tiny_preset")
def test_events_are_told_as_json_lines_and_previews_go_to_a_file(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    preview = tmp_path / "preview.png"
    options = [*arguments(recording, tmp_path / "a.zip"), "--json", "--preview", str(preview)]
    assert command.main(options) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["event"] for line in lines} == {"progress", "stage", "preview", "finished"}
    (*_, shown) = (line for line in lines if line["event"] == "preview")
    assert (shown["path"], shown["stage"], shown["step"]) == (str(preview), "fuse", 8)
    assert decode_png(preview.read_bytes()).shape == (64, 128, 3)
    assert lines[-1]["metrics"]["psnr"] > 5


@pytest.mark.usefixtures("tiny_preset")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_keeps_the_state_and_the_same_command_goes_on(
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
):
    def interrupt(report: object, event: Event) -> None:
        if isinstance(event, StageMetrics) and event.stage == "mouth":
            os.kill(os.getpid(), number)

    options = arguments(recording, tmp_path / "a.zip")
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(command.Report, "event", interrupt)
        assert command.main(options) == command.STOPPED == 75
    assert signal.getsignal(number) == before
    assert "the same command goes on" in capsys.readouterr().err
    assert (tmp_path / "a.zip.state").exists()
    assert command.main(options) == 0
    captured = capsys.readouterr().err
    assert "going on from step 0 of stage face" in captured
    assert "mouth 3/3" not in captured
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip"}


def test_the_command_says_what_is_wrong_with_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main([*arguments(tmp_path, tmp_path / "out"), "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: clip.mp4 cannot be read as video")
    assert json.loads(captured.out)["event"] == "error"
