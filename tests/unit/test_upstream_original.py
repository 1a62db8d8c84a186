"""The original's own checkpoints, trained on a real clip, draw its own held-out frames here.

Reads the test data of VISEME_TEST_DATA: the clip, its preprocessed form, checkpoints and renders.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from model_hosts.talking_gaussian.images import decode_png
from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet
from model_hosts.talking_gaussian.preprocess.media import read_clip
from model_hosts.talking_gaussian.preprocess.poses import pose_statistics
from model_hosts.talking_gaussian.preprocess.units import UnitMaps
from model_hosts.talking_gaussian.upstream.bundle import UpstreamBundle
from model_hosts.talking_gaussian.upstream.checkpoint import CheckpointInvalid
from model_hosts.talking_gaussian.upstream.driving import arrange_units
from model_hosts.talking_gaussian.upstream.export import Extras, export_layout
from model_hosts.talking_gaussian.upstream.importing import Card, import_avatar
from model_hosts.talking_gaussian.upstream.layout import UpstreamData, read_layout
from model_hosts.talking_gaussian.upstream.model import ACTION_UNITS, read_model
from model_hosts.talking_gaussian.upstream.render import render_frames
from tests.doubles.webp import stored_frame

pytestmark = pytest.mark.torch

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("VISEME_TEST_DATA", ROOT.parent / "shared" / "data"))
FIRST = 450
"""The frames from here to the last, 499, stand for the clip: all of them were held out."""
LEAST = 43.0
"""Head PSNR against the original's renders in dB. They are stored as WebP (q 95), which alone costs so much
that 43.4 to 44.5 dB remain."""


@pytest.fixture(scope="module")
def preprocessed() -> dict[str, np.ndarray]:
    path = DATA / "german_preprocessed" / "d.npz"
    if not path.is_file() or not (DATA / "upstream" / "fuse.pth.0").is_file():
        pytest.skip(f"SKIPPED: no checkpoints of the original at {DATA}; set VISEME_TEST_DATA")
    with np.load(path, allow_pickle=False) as archive:
        values = {name: archive[name] for name in archive.files}
    with np.load(DATA / "german_preprocessed" / "m.npz", allow_pickle=False) as archive:
        values["lab"] = archive["lab"][FIRST:]
        values["teeth"] = np.unpackbits(archive["teeth"][FIRST:], axis=-1).astype(bool)
    return values


@pytest.fixture(scope="module")
def recording(preprocessed: dict[str, np.ndarray]) -> TrainingSet:
    """The held-out half of the clip as a training set of its own."""
    labels, poses = preprocessed["lab"], preprocessed["V"][FIRST:].astype(np.float32)
    names = tuple(str(name) for name in preprocessed["bs_names"])
    units = preprocessed["bs"][FIRST:].astype(np.float32)
    nothing = np.zeros((52, 1), np.float32)
    count, (height, width) = len(labels), labels.shape[1:]
    frames = read_clip(DATA / "video" / "German_20s.mp4")[FIRST:]
    return TrainingSet(
        frames=frames,
        labels=labels,
        plate=decode_png((DATA / "german_preprocessed" / "plate.png").read_bytes()),
        poses=poses,
        focal=float(preprocessed["f"]),
        pose_statistics=pose_statistics(poses),
        units=units,
        maps=UnitMaps(names, units.mean(0), nothing, nothing, ("none",)),
        lip=np.zeros((count, 1), np.float32),
        silent=np.zeros(count, bool),
        track=np.zeros((count, 4), np.float32),
        key=0,
        depth=np.ones((height, width), np.float32),
        lip_corner=np.zeros((count, 2), np.int64),
        eye_corners=np.zeros((count, 2, 2), np.int64),
        closed=np.zeros(1, np.float32),
        training=np.arange(count - 10),
        held_out=np.arange(count - 10, count),
    )


@pytest.fixture(scope="module")
def layout(
    recording: TrainingSet, preprocessed: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> UpstreamData:
    directory = tmp_path_factory.mktemp("layout")
    extras = Extras(
        preprocessed["ds"][FIRST:], preprocessed["lms"][FIRST:].astype(np.float32), preprocessed["teeth"]
    )
    export_layout(recording, extras, directory)
    data = read_layout(directory, 29)
    np.testing.assert_allclose(data.views, recording.poses, atol=1e-5)
    # The run that is compared with had action units of another calibration.
    names = [str(name) for name in preprocessed["au_names"]]
    columns = [names.index(name) for name in ACTION_UNITS]
    return replace(data, action_units=preprocessed["au"][FIRST:, columns].astype(np.float32))


@pytest.fixture(scope="module")
def avatar(layout: UpstreamData, preprocessed: dict[str, np.ndarray]) -> UpstreamBundle:
    model = read_model([DATA / "upstream" / "fuse.pth.0"])
    assert (model.count("face"), model.count("mouth"), model.audio_features) == (15930, 892, 29)
    names = [str(name) for name in preprocessed["bs_names"]]
    units = arrange_units(preprocessed["bs"][FIRST:], names)
    return import_avatar(model, layout, units, Card("german", "German"))


def test_the_mouth_alone_is_not_enough(preprocessed: dict[str, Any]) -> None:
    with pytest.raises(CheckpointInvalid, match="the face is missing"):
        read_model([DATA / "upstream" / "mouth.pth.0"])


def test_frames_are_those_of_the_original(
    avatar: UpstreamBundle, layout: UpstreamData, preprocessed: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Through the bundle on disk; the first frames lack the audio before them, as the clip is cut."""
    avatar.write(tmp_path / "german")
    bundle = UpstreamBundle.read(tmp_path / "german")
    numbers = range(5, len(layout.views), 5)
    heads, whole = [], []
    for number, image in zip(numbers, render_frames(bundle, layout, numbers), strict=True):
        truth = stored_frame(DATA / "upstream" / "renders_q95.npz", FIRST + number)
        label = preprocessed["lab"][number]
        heads.append(psnr(image, truth, (label >= 1) & (label <= 3)))
        whole.append(psnr(image, truth, np.ones(label.shape, bool)))
    print(f"head PSNR {np.mean(heads):.2f} dB, least {min(heads):.2f}; whole picture {np.mean(whole):.2f} dB")
    assert min(heads) > LEAST
    assert min(whole) > LEAST


def psnr(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    error = np.square(image.astype(np.float64) - truth)[mask].mean()
    return float(10 * np.log10(255**2 / error))
