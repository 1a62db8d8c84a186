"""The export of our training set in the original's layout, and what reads it back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")


from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet, load  # noqa: E402
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid  # noqa: E402
from model_hosts.talking_gaussian.upstream import __main__ as command  # noqa: E402
from model_hosts.talking_gaussian.upstream.bundle import UpstreamBundle  # noqa: E402
from model_hosts.talking_gaussian.upstream.camera import from_track  # noqa: E402
from model_hosts.talking_gaussian.upstream.export import Extras, audio_windows, export_layout  # noqa: E402
from model_hosts.talking_gaussian.upstream.layout import read_layout  # noqa: E402
from model_hosts.talking_gaussian.upstream.masks import PALETTE, parsing, teeth_mask, torso_picture  # noqa: E402
from model_hosts.talking_gaussian.upstream.pictures import encode_jpeg, read_picture  # noqa: E402
from tests.doubles import talking_head, upstream  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return load(talking_head.write_studio(tmp_path_factory.mktemp("studio")))


@pytest.fixture(scope="module")
def extras(data: TrainingSet) -> Extras:
    rng = np.random.default_rng(0)
    audio = audio_windows(rng.normal(size=(2 * data.count, 29)).astype(np.float32), data.count)
    return Extras(audio, rng.uniform(0, 64, (data.count, 478, 3)).astype(np.float32))


@pytest.fixture(scope="module")
def layout(data: TrainingSet, extras: Extras, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("layout")
    done: list[tuple[int, int]] = []
    export_layout(data, extras, directory, lambda *step: done.append(step))
    assert done == [(number + 1, data.count) for number in range(data.count)]
    return directory


def test_the_layout_is_complete(layout: Path, data: TrainingSet) -> None:
    for name, ending in (
        ("ori_imgs", "jpg"),
        ("ori_imgs", "lms"),
        ("gt_imgs", "jpg"),
        ("torso_imgs", "png"),
        ("parsing", "png"),
        ("teeth_mask", "npy"),
    ):
        found = {path.name for path in (layout / name).glob(f"*.{ending}")}
        assert found == {f"{index}.{ending}" for index in range(data.count)}, name
    assert {path.name for path in layout.iterdir() if path.is_file()} == {
        *("bc.jpg", "au.csv", "aud_ds.npy", "track_params.pt"),
        *("transforms_train.json", "transforms_val.json"),
    }


def test_the_cameras_come_back(layout: Path, data: TrainingSet) -> None:
    found = read_layout(layout, 29)
    np.testing.assert_allclose(found.views, data.poses, atol=1e-5)
    assert found.focal == pytest.approx(data.focal)
    assert found.training.tolist() == data.training.tolist()
    assert found.held_out.tolist() == data.held_out.tolist()
    frames = json.loads((layout / "transforms_val.json").read_text())["frames"]
    assert [frame["aud_id"] for frame in frames] == data.held_out.tolist()


def test_the_track_is_the_same_pose(layout: Path, data: TrainingSet) -> None:
    track = torch.load(layout / "track_params.pt", weights_only=True)
    np.testing.assert_allclose(from_track(track["euler"], track["trans"]), data.poses, atol=1e-5)
    assert track["focal"].tolist() == [data.focal]
    assert track["exp"].shape == (data.count, 79)


def test_audio_and_landmarks_are_those_given(layout: Path, data: TrainingSet, extras: Extras) -> None:
    windows = np.load(layout / "aud_ds.npy", allow_pickle=False)
    assert windows.shape == (data.count, 16, 29)
    np.testing.assert_array_equal(windows, extras.audio)
    points = np.loadtxt(layout / "ori_imgs" / "3.lms")
    assert points.shape == (68, 2)
    np.testing.assert_allclose(points[8], extras.landmarks[3, 152, :2], atol=1e-5)  # the chin


def test_windows_lie_around_their_frame() -> None:
    steps = np.arange(40, dtype=np.float32)[:, None]
    windows = audio_windows(steps, 20)[..., 0]
    assert windows[10].tolist() == list(range(12, 28))
    assert windows[0].tolist() == [0] * 8 + list(range(8))
    assert windows[19].tolist() == [*range(30, 40), 39, 39, 39, 39, 39, 39]


def test_action_units_are_in_the_columns_that_are_asked_for(layout: Path, data: TrainingSet) -> None:
    lines = (layout / "au.csv").read_text().splitlines()
    names = lines[0].split(",")
    assert names[:2] == ["frame", " timestamp"]
    assert {f" AU{number}_r" for number in ("01", "04", "05", "06", "07", "25", "45")} <= set(names)
    values = np.array([[float(value) for value in line.split(",")] for line in lines[1:]])
    assert values[:, 0].tolist() == list(range(1, data.count + 1))
    np.testing.assert_allclose(values[:, 1], np.arange(data.count) / 25, atol=1e-6)
    assert values[:, 4:].min() == 0 and values[:, 4:].max() <= 5
    blink = data.units[:, data.maps.names.index("eyeBlinkLeft")]
    assert np.corrcoef(values[:, names.index(" AU45_r")], blink)[0, 1] > 0.99
    assert np.corrcoef(values[:, names.index(" AU25_r")], data.opening)[0, 1] > 0.9


def test_pictures_show_the_regions(layout: Path, data: TrainingSet) -> None:
    index = int(np.argmax(data.opening))
    label, frame = data.labels[index], data.frames[index]
    colours = read_picture(layout / "parsing" / f"{index}.png")
    teeth = np.load(layout / "teeth_mask" / f"{index}.npy")
    assert teeth.dtype == bool
    for value, colour in PALETTE.items():
        np.testing.assert_array_equal((colours == colour).all(-1)[~teeth], (label == value)[~teeth])
    assert (colours[teeth] == PALETTE[1]).all()
    person = label > 0
    whole = read_picture(layout / "gt_imgs" / f"{index}.jpg").astype(int)
    assert np.abs(whole - frame)[person].mean() < 4
    assert np.abs(whole - data.plate)[~person].mean() < 4
    torso = read_picture(layout / "torso_imgs" / f"{index}.png")
    assert (torso[..., 3][label >= 4] == 255).all()
    assert not torso[..., 3][label == 0].any()
    assert not torso[torso[..., 3] == 0].any()


def test_the_torso_goes_on_behind_the_head() -> None:
    label = np.zeros((100, 8), np.uint8)
    label[10:60], label[60:] = 1, 5
    picture = np.full((100, 8, 3), 200, np.uint8)
    picture[label == 1] = 10
    torso = torso_picture(picture, label)
    assert (torso[12:, :, 3] == 255).all()
    assert not torso[:12, :, 3].any()
    assert (torso[64:, :, 0] == 200).all()
    column = torso[12:60, 4, 0].astype(int)
    assert (np.diff(column) >= 0).all()
    assert 140 < column[0] < column[-1] <= 200


def test_teeth_are_the_bright_grey_pixels_of_the_mouth() -> None:
    label = np.ones((4, 4), np.uint8)
    label[1:3, 1:3] = 3
    frame = np.full((4, 4, 3), (200, 150, 130), np.uint8)
    frame[1, 1], frame[1, 2], frame[2, 1], frame[2, 2] = (
        (190, 185, 170),
        (60, 20, 20),
        (200, 90, 90),
        (0, 0, 0),
    )
    teeth = teeth_mask(frame, label)
    assert np.argwhere(teeth).tolist() == [[1, 1]]
    assert (parsing(label, teeth)[1, 1] == PALETTE[1]).all()
    assert not teeth_mask(frame, np.ones((4, 4), np.uint8)).any()


def test_jpegs_come_back_nearly_as_they_were(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:64, :80]
    image = np.stack([rows * 3, columns * 3, 255 - rows - columns], -1).clip(0, 255).astype(np.uint8)
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(image))
    error = read_picture(tmp_path / "a.jpg").astype(int) - image
    assert np.abs(error).mean() < 1
    assert np.abs(error.mean((0, 1))).max() < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": np.zeros((3, 16, 29), np.float32)}, "audio is"),
        ({"landmarks": np.zeros((40, 5, 2), np.float32)}, "landmarks are"),
        ({"landmarks": np.full((40, 68, 2), np.nan, np.float32)}, "not finite"),
        ({"teeth": np.zeros((40, 3, 3), bool)}, "teeth are"),
    ],
)
def test_extras_that_do_not_fit_are_refused(
    data: TrainingSet, extras: Extras, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetInvalid, match=message):
        export_layout(data, replace(extras, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The commands, from one to the other.


def test_what_is_exported_can_be_imported_and_rendered(
    layout: Path, data: TrainingSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = upstream.make_model(features=29)
    checkpoint = upstream.write_checkpoint(tmp_path / "chkpnt_fuse_latest.pth", upstream.fused(model))
    np.savez(tmp_path / "units.npz", units=data.units, unit_names=np.array(data.maps.names))
    arguments = ["import", str(checkpoint), "--data", str(layout), "--out", str(tmp_path / "original")]
    assert command.main(arguments) == 1
    assert "--encoder" in capsys.readouterr().err
    assert command.main([*arguments, "--units", str(tmp_path / "units.npz"), "--name", "original"]) == 0
    bundle = UpstreamBundle.read(tmp_path / "original")
    np.testing.assert_array_equal(bundle.tensor("face.xyz"), model.tensors["face.xyz"])
    assert bundle.background.shape == (64, 64, 3)
    drawn = tmp_path / "frames"
    for options, frames in (([], data.held_out), (["--frames", "3:5", "--still"], [3, 4])):
        call = ["render", str(tmp_path / "original"), "--data", str(layout), "--out", str(drawn), *options]
        assert command.main(call) == 0
        for number in frames:
            assert read_picture(drawn / f"{number:06d}.png").shape == (64, 64, 3)
    # Where no Gaussian is, the recorded torso over the plate is seen.
    picture = read_picture(drawn / f"{int(data.held_out[0]):06d}.png").astype(int)
    behind = read_layout(layout, 29).behind(int(data.held_out[0]))
    assert (np.abs(picture - behind).max(-1) <= 1).mean() > 0.3


def test_layouts_that_cannot_be_used_are_refused(layout: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="no file of"):
        read_layout(layout, 44)
    with pytest.raises(DatasetInvalid, match=r"transforms_train\.json cannot be used"):
        read_layout(tmp_path, 29)
