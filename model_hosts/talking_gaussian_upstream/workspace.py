"""Where the original's data, checkpoints and videos of one avatar are, and what can be gone on from."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STAGES = ("mouth", "face", "fuse")
FUSE_STEPS = 10000
"""The original's own number; its script takes no other."""
_NUMBERED = re.compile(r"chkpnt_(mouth|face|fuse)_(\d+)\.pth")


@dataclass(frozen=True)
class Place:
    """Directories of one avatar, in training or trained.

    Attributes:
        directory: Holds all of it.
    """

    directory: Path

    @property
    def data(self) -> Path:
        """The recording in the original's layout."""
        return self.directory / "data"

    @property
    def model(self) -> Path:
        """What the original's scripts write: checkpoints, its arguments, its pictures."""
        return self.directory / "model"

    def checkpoints(self, stage: str) -> list[tuple[int, Path]]:
        """The numbered checkpoints of a stage, the newest first."""
        found = []
        for path in self.model.glob(f"chkpnt_{stage}_*.pth"):
            match = _NUMBERED.fullmatch(path.name)
            if match:
                found.append((int(match[2]), path))
        return sorted(found, reverse=True)

    def newest(self, stage: str) -> tuple[int, Path] | None:
        """The newest checkpoint of a stage that is whole, and its step."""
        return next(((step, path) for step, path in self.checkpoints(stage) if whole(path)), None)

    def latest(self, stage: str) -> Path:
        """The checkpoint that the original's next script reads."""
        return self.model / f"chkpnt_{stage}_latest.pth"

    def repair_latest(self, stage: str) -> None:
        """Puts the newest whole checkpoint where the next script looks, if what is there is damaged."""
        newest = self.newest(stage)
        if newest is not None and not whole(self.latest(stage)):
            fresh = self.latest(stage).with_suffix(".new")
            shutil.copyfile(str(newest[1]), str(fresh))
            fresh.replace(self.latest(stage))

    def remember(self, facts: dict[str, Any]) -> None:
        """Keeps what a later call has to know."""
        write_json(self.directory / "about.json", facts)

    def remembered(self) -> dict[str, Any]:
        """What was kept; nothing when that is missing or damaged."""
        return read_json(self.directory / "about.json")


@dataclass(frozen=True)
class Workspace:
    """The places of one avatar.

    Attributes:
        directory: Of the avatar.
    """

    directory: Path

    @property
    def training(self) -> Place:
        """Of the training that is under way or was interrupted."""
        return Place(self.directory / "training")

    @property
    def trained(self) -> Place:
        """Of the last training that was finished; videos are drawn with it."""
        return Place(self.directory / "trained")

    def begin(self, checkpoint: Path, request: dict[str, Any]) -> bool:
        """Makes room for a training; says whether it goes on from an interrupted one.

        It does when the caller's checkpoint file is there, of the same request: the server removes that when
        a training is finished, and the next one then starts anew.

        Args:
            checkpoint: The caller's file; it holds the request, the original's own checkpoints are elsewhere.
            request: What decides whether a training may go on.
        """
        place = self.training
        if place.model.is_dir() and read_json(checkpoint) == request:
            return True
        shutil.rmtree(str(place.directory), ignore_errors=True)
        place.model.mkdir(parents=True)
        place.remember(request)
        write_json(checkpoint, request)
        return False

    def finish(self) -> Place:
        """What was in training is what videos are drawn with from now on."""
        old = self.directory / "replaced"
        shutil.rmtree(str(old), ignore_errors=True)
        if self.trained.directory.exists():
            self.trained.directory.replace(old)
        self.training.directory.replace(self.trained.directory)
        shutil.rmtree(str(old), ignore_errors=True)
        return self.trained


def whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end: torch's files are archives with an index behind."""
    return zipfile.is_zipfile(str(checkpoint))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """An object of a file; empty when the file is missing or is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
