"""From a video to a recording, in one piece: restarts, changed inputs, refusals, the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from model_hosts.talking_gaussian.images import decode_png
from model_hosts.talking_gaussian.preprocess import __main__ as command
from model_hosts.talking_gaussian.preprocess import landmarks as face
from model_hosts.talking_gaussian.preprocess.bundle_adjustment import angles
from model_hosts.talking_gaussian.preprocess.dataset import MOUTH, TrainingSet, load
from model_hosts.talking_gaussian.preprocess.gate import ClipRefused
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.preprocess.recording import Options, Step, prepare
from model_hosts.talking_gaussian.preprocess.sound import read_wav
from model_hosts.talking_gaussian.preprocess.tools import Face, Tools, ToolsMissing
from tests.doubles.speaking_person import SIZE, Models, Person, models

SMALL = Options(size=SIZE)
PERSON = Person(80)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PERSON.write(tmp_path_factory.mktemp("video") / "person.mp4")


class Killed(BaseException):
    pass


@dataclass
class Made:
    """A finished recording, made in two runs: the first was killed.

    Attributes:
        directory: Where it is.
        steps: What the second run told.
        first, second: What the models of both runs looked at.
        left: Files of the directory after the first run.
    """

    directory: Path
    steps: list[Step]
    first: Models
    second: Models
    left: set[str]


@pytest.fixture(scope="module")
def made(video: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    def kill(name: str, index: int) -> None:
        if name == "person" and index == 30:
            raise Killed

    directory = tmp_path_factory.mktemp("recording")
    out, steps = directory / "out", []
    first = models(PERSON, directory, noise=0.15, interrupt=kill)
    with pytest.raises(Killed):
        prepare(video, out, first, options=SMALL)
    left = {path.name for path in out.iterdir()}
    second = models(PERSON, directory, noise=0.15)
    recording = prepare(video, out, second, steps.append, SMALL)
    assert [finding.code for finding in recording.findings] == ["SHORT", "FACE_SMALL"]
    return Made(recording.directory, steps, first, second, left)


@pytest.fixture(scope="module")
def data(made: Made) -> TrainingSet:
    return load(made.directory)


def test_the_trainer_reads_it(data: TrainingSet):
    assert data.count == 80 and data.size == (SIZE, SIZE)
    assert data.held_out.tolist() == list(range(72, 80))
    assert data.training.tolist() == list(range(72))
    assert data.lip.shape == (80, 8)
    assert data.key not in data.held_out
    assert (data.depth[data.labels[data.key] > 0] > 0.7).all()


def test_the_clip_is_the_video_itself(data: TrainingSet):
    difference = np.abs(data.frames[20].astype(int) - PERSON.picture(20))
    assert difference.mean() < 2


def test_the_head_is_where_it_was_drawn(made: Made):
    with np.load(made.directory / "truth.npz") as truth:
        turned = angles(truth["V"][:, :3, :3].astype(float)) - angles(PERSON.rotation)
        assert np.abs(turned.mean(0)).max() < 1.5
        assert turned.std(0).max() < 0.3
        assert truth["focal"] == pytest.approx(600)


def test_the_lips_are_what_was_drawn(data: TrainingSet):
    opening = PERSON.opening
    fitted = np.linalg.lstsq(np.c_[data.lip, np.ones(80)], opening, rcond=None)[0]
    assert np.corrcoef(np.c_[data.lip, np.ones(80)] @ fitted, opening)[0, 1] > 0.98
    # The units say the same about them.
    by_units = np.c_[data.maps.lip(data.units), np.ones(80)] @ fitted
    assert np.corrcoef(by_units, opening)[0, 1] > 0.95
    closed = np.abs(data.lip - data.closed).sum(1)
    assert np.corrcoef(closed, opening)[0, 1] > 0.6
    shown = (data.labels == MOUTH).sum((1, 2))
    assert np.corrcoef(shown, opening)[0, 1] > 0.95


def test_the_lip_code_says_where_lips_and_chin_are(made: Made, data: TrainingSet):
    shape = data.lip_shape
    assert shape is not None
    with np.load(made.directory / "truth.npz") as truth:
        landmarks = truth["landmarks"][:, [*face.OUTER_LIPS, *face.CHIN], :2]
    for frame in (3, 30, 60):
        points = shape.points.copy()
        points[:, :2] += np.tensordot(data.lip[frame], shape.basis, 1)
        seen = points @ data.poses[frame, :3, :3].T + data.poses[frame, :3, 3]
        pixels = seen[:, :2] / seen[:, 2:] * data.focal + data.centre
        # Both lists are in one order: that of the lip code's landmarks.
        assert np.abs(pixels - landmarks[frame]).max() < 1.5


def test_the_idle_track_is_a_part_of_the_recording_that_may_be_learnt_from(data: TrainingSet):
    assert data.idle is not None
    near = np.abs(data.idle.poses[:, None] - data.poses[None, data.training]).max((2, 3)).min(1)
    assert np.median(near) < 1e-4
    assert data.idle.track.shape == (len(data.idle.poses), 4)


def test_the_boxes_hold_the_mouth(data: TrainingSet):
    for index in range(0, 80, 7):
        rows, columns = np.nonzero(data.labels[index] == MOUTH)
        left, top = data.lip_corner[index]
        assert (columns >= left).all() and (columns < left + data.lip_box[0]).all()
        assert (rows >= top).all() and (rows < top + data.lip_box[1]).all()


def test_sound_sheet_and_idle_track_lie_beside_it(made: Made):
    assert len(read_wav(made.directory / "audio.wav")) == 80 * 640
    assert decode_png((made.directory / "sheet.png").read_bytes()).shape[1] == 6 * 256
    with np.load(made.directory / "truth.npz") as truth:
        assert len(truth["idle_V"]) == len(truth["idle_units"]) == len(truth["idle_track"]) > 10
    about = json.loads((made.directory / "recording.json").read_text())
    assert about["frames"] == 80
    assert about["findings"][0]["message"]["zh"].startswith("视频只有")


def test_progress_only_goes_on(made: Made):
    steps = made.steps
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1.0)
    assert list(dict.fromkeys(step.name for step in steps)) == [
        "survey", "sound", "clip", "person", "pose", "labels", "torso",
    ]  # fmt: skip
    assert all(step.message and 0 <= step.fraction <= 1 for step in steps)


def test_a_second_run_looks_at_nothing_again(made: Made, video: Path):
    directory, looked = made.directory, models(PERSON, made.directory.parent)
    whole = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    prepare(video, directory, looked, options=SMALL)
    assert looked.calls == {}
    assert {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()} == whole


def test_a_killed_run_goes_on_at_its_step(made: Made):
    assert made.first.calls == {"survey": 10, "faces": 80, "person": 30}
    assert made.second.calls == {"person": 80}
    assert made.left == {"steps", "sheet.png"}


def test_another_video_redoes_everything_and_another_size_only_what_depends_on_it(
    made: Made, tmp_path: Path, video: Path
):
    def stop(name: str, index: int) -> None:
        if name == "person":
            raise Killed

    longer = Person(90, seed=3)
    other = longer.write(tmp_path / "other.mp4")
    for path, options, person, expected in (
        (video, SMALL, PERSON, {"survey": 10, "faces": 80}),
        (other, SMALL, longer, {"survey": 12, "faces": 90}),
        (other, Options(size=512), longer, {"faces": 90}),
    ):
        looked = models(person, tmp_path, interrupt=stop)
        with pytest.raises(Killed):
            prepare(path, tmp_path / "out", looked, options=options)
        assert looked.calls == expected


def test_a_refused_video_leaves_no_recording_of_the_one_before(made: Made, tmp_path: Path):
    shutil.copytree(made.directory, tmp_path / "out")
    person = Person(40)
    short = person.write(tmp_path / "short.mp4")
    with pytest.raises(ClipRefused, match=r"only 1\.6 s long"):
        prepare(short, tmp_path / "out", models(person, tmp_path), options=SMALL)
    with pytest.raises(DatasetInvalid, match="cannot be read"):
        load(tmp_path / "out")


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path):
    def two(index: int, faces: list[Face]) -> list[Face]:
        beside = Face(faces[0].points + np.array([60, 0, 0]), faces[0].units, faces[0].pose)
        return [*faces, beside]

    person = Person(40)
    mute = person.write(tmp_path / "mute.mp4", silent=True)
    with pytest.raises(ClipRefused) as refusal:
        prepare(mute, tmp_path / "out", models(person, tmp_path, change=two), options=SMALL)
    assert [finding.code for finding in refusal.value.findings] == [
        "TOO_SHORT", "TWO_FACES", "FACE_SMALL", "NO_SOUND",
    ]  # fmt: skip
    assert (tmp_path / "out" / "sheet.png").stat().st_size > 1000
    assert not (tmp_path / "out" / "truth.npz").exists()


def test_a_video_without_a_face_is_refused_with_a_picture(tmp_path: Path, video: Path):
    nobody = models(PERSON, tmp_path, change=lambda index, faces: [])
    with pytest.raises(ClipRefused, match="No face can be found"):
        prepare(video, tmp_path / "out", nobody, options=SMALL)
    assert (tmp_path / "out" / "sheet.png").stat().st_size > 1000
    assert "faces" not in nobody.calls


def test_what_is_no_video_is_refused(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(ClipRefused, match="cannot be read"):
        prepare(tmp_path / "a.mp4", tmp_path / "out", models(PERSON, tmp_path))


def test_a_film_is_refused_before_it_is_decoded(tmp_path: Path):
    with av.open(str(tmp_path / "long.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        for place in (0, 1, 25 * 400):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            frame.pts = place
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    looked = models(PERSON, tmp_path)
    with pytest.raises(ClipRefused, match="400 s long"):
        prepare(tmp_path / "long.mkv", tmp_path / "out", looked)
    assert looked.calls == {}


def test_missing_models_are_named(tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ToolsMissing, match=r"face_landmarker.task"):
        prepare(video, tmp_path / "out", Tools(tmp_path / "face_landmarker.task", tmp_path))
    assert command.main([str(video), "--out", str(tmp_path / "out"), "--models", str(tmp_path)]) == 1
    assert "face_landmarker.task is missing" in capsys.readouterr().err


def test_the_command_tells_progress_and_findings(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    nobody = models(PERSON, tmp_path, change=lambda index, faces: [])
    monkeypatch.setattr(command, "Tools", lambda *paths: nobody)
    arguments = [str(video), "--out", str(tmp_path / "out"), "--models", str(tmp_path), "--size", "256"]
    assert command.main([*arguments, "--json"]) == 3
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"step": "survey", "fraction": 0.0, "done": 0.0}
    assert lines[-1]["finding"]["code"] == "NO_FACE"
    assert command.main([*arguments, "--language", "zh"]) == 3
    assert "refuse: NO_FACE: 找不到人脸。" in capsys.readouterr().err
