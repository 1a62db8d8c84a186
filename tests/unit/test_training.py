"""The trainer on a cartoon: parity with inference, learning, determinism, resuming, storing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from model_hosts.talking_gaussian.bundle import Bundle  # noqa: E402
from model_hosts.talking_gaussian.model.deformation import Deformer, FrameInput  # noqa: E402
from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet, load  # noqa: E402
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid  # noqa: E402
from model_hosts.talking_gaussian.training import __main__ as command  # noqa: E402
from model_hosts.talking_gaussian.training.evaluate import evaluate  # noqa: E402
from model_hosts.talking_gaussian.training.export import Card, export_bundle  # noqa: E402
from model_hosts.talking_gaussian.training.settings import BranchSize, Settings  # noqa: E402
from model_hosts.talking_gaussian.training.sheets import contact_sheet, telling_frames  # noqa: E402
from model_hosts.talking_gaussian.training.trainer import Trainer  # noqa: E402
from tests.doubles import talking_head  # noqa: E402

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
TINY = Settings(
    batch=2,
    mouth_steps=3,
    face_steps=4,
    fuse_steps=4,
    face=BranchSize(90, 16, (8, 12), 2),
    mouth=BranchSize(20, 8, (8,), 2),
    torso=BranchSize(40, 8, (8,), 2),
    code=8,
)
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


def test_progress_tells_stages_steps_and_time_left(data: TrainingSet):
    seen = []
    Trainer(data, TINY, CPU, seen.append).run()
    assert [(at.stage, at.step, at.steps) for at in seen] == [("mouth", 3, 3), ("face", 4, 4), ("fuse", 4, 4)]
    assert seen[-1].done == seen[-1].total == 11
    assert seen[-1].seconds_left == 0 < seen[0].seconds_left
    assert all(np.isfinite([at.loss, at.psnr]).all() for at in seen)


class StopHereError(Exception):
    pass


@pytest.mark.parametrize("stop_at", ["mouth", "face", "fuse"])
def test_a_training_that_was_killed_goes_on_as_if_it_had_not_been(
    data: TrainingSet, tmp_path: Path, stop_at: str
):
    whole = Trainer(data, TINY, CPU)
    whole.run()

    def stop(progress):
        if progress.stage == stop_at:
            raise StopHereError

    path = tmp_path / "state.safetensors"
    with pytest.raises(StopHereError):
        Trainer(data, TINY, CPU, stop, path, checkpoint_every=2).run()
    resumed = Trainer(data, TINY, CPU, None, path, checkpoint_every=2)
    resumed.run()
    for name, value in whole.scene.state_dict().items():
        torch.testing.assert_close(resumed.scene.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_of_another_training_is_refused(data: TrainingSet, tmp_path: Path):
    path = tmp_path / "state.safetensors"
    Trainer(data, TINY, CPU, None, path).run()
    with pytest.raises(DatasetInvalid, match="other data or settings"):
        Trainer(data, replace(TINY, seed=9), CPU, None, path).run()
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(DatasetInvalid, match="no usable checkpoint"):
        Trainer(data, TINY, CPU, None, path).run()


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


def test_the_command_writes_bundle_and_sheet(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(command.PRESETS, "quick", TINY)
    arguments = [
        "--dataset",
        str(recording),
        "--out",
        str(tmp_path / "a.zip"),
        "--name",
        "tiny",
        "--synthetic",
    ]
    assert command.main([*arguments, "--sheet", str(tmp_path / "sheet.png"), "--device", "cpu"]) == 0
    info = Bundle.read(tmp_path / "a.zip").info
    assert info.synthetic
    assert info.training["metrics"]["psnr"] > 5
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert "fuse 4/4" in capsys.readouterr().err


def test_a_training_too_large_for_a_cpu_is_refused_before_it_starts(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["--dataset", str(recording), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert command.main(arguments) == 1
    assert "need an NVIDIA GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_wrong_with_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main(["--dataset", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("error: clip.mp4 cannot be read as video")
