"""A training of the cartoon in seconds, here or in a child process that may be killed.

`python -m tests.doubles.tiny_training DIRECTORY CHECKPOINT RESULT` goes on with CHECKPOINT, keeps the state
after each step, tells every event as a JSON line, and writes the finished scene to RESULT.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from model_hosts.talking_gaussian.preprocess.dataset import load
from model_hosts.talking_gaussian.training.events import as_json
from model_hosts.talking_gaussian.training.settings import BranchSize, Growth, Settings
from model_hosts.talking_gaussian.training.trainer import Intervals, Trainer

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
GROWING = replace(
    TINY,
    face_steps=8,
    fuse_steps=8,
    growth=Growth(110, 26, 50, every=2, first=0.2, last=0.8),
    learn_plate=True,
)
"""Everything that a checkpoint has to hold."""
EACH_STEP = Intervals(progress=0, preview=float("inf"), checkpoint=0)


def main(directory: Path, checkpoint: Path, result: Path) -> None:
    torch.set_num_threads(1)

    def tell(event: object) -> None:
        print(json.dumps(as_json(event)), flush=True)

    trainer = Trainer(load(directory), GROWING, CPU, tell, checkpoint, EACH_STEP)
    trainer.run()
    save_file({name: value.contiguous() for name, value in trainer.scene.state_dict().items()}, result)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
