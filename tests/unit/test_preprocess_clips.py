"""Real videos of people become recordings, with the real models and the test data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from model_hosts.talking_gaussian.images import decode_png
from model_hosts.talking_gaussian.preprocess.bundle_adjustment import angles, jitter
from model_hosts.talking_gaussian.preprocess.dataset import HAIR, MOUTH, SKIN, TrainingSet, load
from model_hosts.talking_gaussian.preprocess.gate import ClipRefused
from model_hosts.talking_gaussian.preprocess.media import read_clip
from model_hosts.talking_gaussian.preprocess.recording import Options, Recording, prepare
from model_hosts.talking_gaussian.preprocess.tools import Tools

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("VISEME_TEST_DATA", ROOT.parent / "shared" / "data"))
TOOLS = Tools(DATA / "models" / "face_landmarker.task", DATA / "models" / "selfie_segmenter.tflite")

pytestmark = [pytest.mark.torch, pytest.mark.timeout(1800)]


def video(name: str) -> Path:
    pytest.importorskip(
        "mediapipe", reason="SKIPPED: the trainer's environment lacks mediapipe", exc_type=ImportError
    )
    path = DATA / "video" / name
    if not path.exists() or not TOOLS.face_landmarker.exists():
        pytest.skip(f"SKIPPED: no {path} or no {TOOLS.face_landmarker}; set VISEME_TEST_DATA")
    return path


@pytest.fixture(scope="module")
def german(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    path = video("German_20s.mp4")
    return prepare(path, tmp_path_factory.mktemp("german"), TOOLS)


@pytest.fixture(scope="module")
def german_data(german: Recording) -> TrainingSet:
    return load(german.directory)


@pytest.mark.slow
class TestTwentySeconds:
    def test_the_pictures_are_the_video_itself(self, german_data: TrainingSet) -> None:
        np.testing.assert_array_equal(german_data.frames, read_clip(video("German_20s.mp4")))

    def test_the_last_four_seconds_are_held_out(self, german_data: TrainingSet) -> None:
        assert german_data.held_out.tolist() == list(range(400, 500))
        assert german_data.training.tolist() == list(range(400))

    def test_nothing_is_wrong_with_it(self, german: Recording) -> None:
        assert german.findings == []
        assert german.sync.clear
        assert abs(german.sync.offset) < 0.06

    def test_the_pose_is_steady(self, german: Recording) -> None:
        with np.load(german.directory / "truth.npz") as truth:
            yaw, pitch, roll = jitter(angles(truth["V"][:, :3, :3].astype(float)))
        # The landmarker's own: .112, .220, .083; the reference: .045, .131, .033.
        assert yaw < 0.06 and pitch < 0.16 and roll < 0.045

    def test_labels_agree_with_the_reference(self, german_data: TrainingSet) -> None:
        with np.load(DATA / "german_preprocessed" / "m.npz") as archive:
            reference = archive["lab"]

        def overlap(*values: int) -> float:
            ours, theirs = np.isin(german_data.labels, values), np.isin(reference, values)
            return float((ours & theirs).sum() / (ours | theirs).sum())

        assert overlap(SKIN, HAIR, MOUTH) > 0.985
        assert overlap(1, 2, 3, 4, 5) > 0.99
        assert overlap(MOUTH) > 0.7

    def test_the_lip_code_is_what_the_lips_do(self, german_data: TrainingSet) -> None:
        held = german_data.held_out
        both = np.c_[german_data.lip, np.ones(500)]
        fitted = np.linalg.lstsq(both[:400], german_data.opening[:400], rcond=None)[0]
        assert np.corrcoef(both[held] @ fitted, german_data.opening[held])[0, 1] > 0.9

    def test_a_gaussian_avatar_can_begin_from_it(self, german_data: TrainingSet) -> None:
        from model_hosts.talking_gaussian.training.initialise import initial_gaussians
        from model_hosts.talking_gaussian.training.settings import Settings

        start = initial_gaussians(german_data, Settings())
        assert all(np.isfinite(part.xyz).all() and (part.size > 0).all() for part in start.values())
        assert np.abs(start["face"].xyz).max() < 0.3

    def test_a_video_that_is_shifted_against_its_sound_is_put_right(
        self, german: Recording, tmp_path: Path
    ) -> None:
        shutil.copytree(german.directory, tmp_path / "out")
        late = _delayed(video("German_20s.mp4"), tmp_path / "late.mp4", 0.24)
        recording = prepare(late, tmp_path / "out", TOOLS)
        assert [finding.code for finding in recording.findings] == ["SYNC_CORRECTED"]
        assert recording.sync.offset == pytest.approx(german.sync.offset + 0.24, abs=0.03)
        before, after = (
            np.load(directory / "truth.npz")["silent"] for directory in (german.directory, tmp_path / "out")
        )
        assert (before == after).mean() > 0.97


def test_five_seconds_are_enough(tmp_path: Path) -> None:
    recording = prepare(video("May_5s.mp4"), tmp_path, TOOLS)
    assert [finding.code for finding in recording.findings] == ["SHORT"]
    data = load(tmp_path)
    assert data.count == 125 and data.held_out.tolist() == list(range(113, 125))
    # Hair that stands far out belongs to the head.
    assert (data.labels == HAIR).mean() > 0.15


@pytest.mark.slow
def test_a_telephones_portrait_is_cut_to_the_head(tmp_path: Path) -> None:
    recording = prepare(video("latentsync_demo1.mp4"), tmp_path, TOOLS)
    assert "SHORT" in [finding.code for finding in recording.findings]
    crop = json.loads((tmp_path / "recording.json").read_text())["crop"]
    assert 450 < crop["side"] < 700
    data = load(tmp_path)
    assert data.size == (512, 512) and data.count == 250
    assert 0.1 < np.isin(data.labels, (SKIN, HAIR, MOUTH)).mean() < 0.4
    assert np.abs(data.track[:, :2]).max() < 100


def test_the_command_prepares_an_old_mpeg_and_says_what_is_not_good(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "model_hosts.talking_gaussian.preprocess", str(video("bbaf2n.mpg"))]
    command += ["--out", str(tmp_path), "--models", str(DATA / "models"), "--size", "256", "--json"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["finding"]["code"] for line in lines if "finding" in line} == {"SHORT", "FACE_SMALL"}
    assert lines[-1] == {"recording": str(tmp_path), "frames": 75}
    assert load(tmp_path).size == (256, 256)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("two", {"TWO_FACES"}),
        ("hand", {"FACE_COVERED"}),
        ("cut", {"CUT"}),
        ("dark", {"TOO_DARK"}),
        ("blurred", {"TOO_BLURRED"}),
        ("nobody", {"NO_FACE"}),
    ],
)
def test_faults_are_found_in_real_pictures(tmp_path: Path, fault: str, expected: set[str]) -> None:
    frames = read_clip(video("May_5s.mp4"))[:80]
    with pytest.raises(ClipRefused) as refusal:
        prepare(
            _encoded(_spoilt(frames, fault), tmp_path / "a.mp4"), tmp_path / "out", TOOLS, options=Options()
        )
    found = {finding.code for finding in refusal.value.findings if finding.severity.value == "refuse"}
    assert found - {"NO_SOUND"} == expected
    assert decode_png((tmp_path / "out" / "sheet.png").read_bytes()).shape[1] == 6 * 256


def _spoilt(frames: np.ndarray, fault: str) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    if fault == "two":
        return np.concatenate([frames, frames[:, :, ::-1]], 2)
    if fault == "dark":
        return (frames * 0.12).astype(np.uint8)
    if fault == "blurred":
        return np.stack([gaussian_filter(frame, (6, 6, 0)) for frame in frames])
    if fault == "nobody":
        return np.broadcast_to(np.arange(512, dtype=np.uint8)[None, :, None, None], frames.shape).copy()
    if fault == "cut":
        return np.concatenate([frames[:40], 255 - frames[40:, :, ::-1] // 2])
    spoilt = frames.copy()
    for index in range(30, 60):  # A hand in a dark glove passes over the lower half of the face.
        spoilt[index, 230:400, 130:330] = (40, 45, 60)
    return spoilt


def _encoded(frames: np.ndarray, path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
    return path


def _delayed(source: Path, path: Path, seconds: float) -> Path:
    """The same video with its sound later."""
    with av.open(str(source)) as before, av.open(str(path), "w") as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams.get()}
        for packet in before.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                packet.pts += round(seconds / packet.time_base)
                packet.dts += round(seconds / packet.time_base)
            packet.stream = streams[packet.stream.index]
            after.mux(packet)
    return path
