"""A real training on the processor: a cartoon learnt in three stages, measured on frames it never saw."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from model_hosts.talking_gaussian.bundle import Bundle  # noqa: E402
from model_hosts.talking_gaussian.preprocess.dataset import load  # noqa: E402
from model_hosts.talking_gaussian.training.evaluate import evaluate  # noqa: E402
from model_hosts.talking_gaussian.training.events import Progress  # noqa: E402
from model_hosts.talking_gaussian.training.export import Card, export_bundle  # noqa: E402
from model_hosts.talking_gaussian.training.settings import BranchSize, Settings  # noqa: E402
from model_hosts.talking_gaussian.training.trainer import Trainer  # noqa: E402
from tests.doubles import talking_head  # noqa: E402

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
SMALL = Settings(
    batch=4,
    mouth_steps=40,
    face_steps=150,
    fuse_steps=250,
    face=BranchSize(700, 16, (8, 16), 2),
    mouth=BranchSize(100, 8, (8,), 2),
    torso=BranchSize(250, 8, (8,), 2),
    code=8,
)


def test_a_processor_learns_frames_that_it_never_saw(tmp_path: Path):
    torch.set_num_threads(1)
    data = load(talking_head.write_studio(tmp_path / "studio"))
    before = evaluate(Trainer(data, SMALL, CPU), data.held_out)
    seen = []
    trainer = Trainer(data, SMALL, CPU, seen.append)
    trainer.run()
    after = evaluate(trainer, data.held_out)
    assert set(trainer.seconds) == {"mouth", "face", "fuse"}
    progress = [event for event in seen if isinstance(event, Progress)]
    assert [at.stage for at in progress if at.step == at.steps] == ["mouth", "face", "fuse"]
    for region, least in (("psnr", 3), ("head", 1.2), ("lips", 2), ("torso", 10)):
        assert after[region] > before[region] + least, region
    assert after["ssim"] > before["ssim"] + 0.08
    export_bundle(
        trainer, Card("cartoon", "Cartoon", "", True, "CC0-1.0", "nobody"), after, tmp_path / "avatar"
    )
    assert Bundle.read(tmp_path / "avatar").info.training["metrics"]["psnr"] == after["psnr"]
