"""State of a training on disk, as safetensors: Gaussians, networks, moments, densifier, stage and step."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid


@dataclass(frozen=True)
class State:
    """Everything that a training needs to go on as if it had never stopped.

    Attributes:
        stage: Name of the stage.
        step: Steps of it that are done.
        batch: Frames a step; fewer than the recipe's after memory was short.
        rate: Factor of the learning rates after roll-backs and smaller batches.
        rollbacks: How often numbers stopped being finite.
        seconds: What each stage has taken so far.
        tensors: Of the scene, the optimiser and the densifier.
    """

    stage: str
    step: int
    batch: int
    rate: float
    rollbacks: int
    seconds: dict[str, float]
    tensors: dict[str, Tensor]


class CheckpointDamaged(ValueError):  # noqa: N818 - reads as a statement, like DatasetInvalid
    """A file is no usable checkpoint; the message says why."""


def previous(path: Path) -> Path:
    """Where the checkpoint before the latest is kept."""
    return path.with_name(path.name + ".previous")


def write(path: Path, state: State, key: str) -> None:
    """Writes a checkpoint; the one there was becomes `PATH.previous`.

    At every moment one complete checkpoint is on the disk under one of the two names.

    Args:
        path: The file.
        state: What to keep.
        key: Names data and settings; only the same training may go on from the file.

    Raises:
        OSError: The disk is full, for example. The old checkpoint is intact and nothing is left beside it.
    """
    tensors = {name: value.detach().contiguous().cpu() for name, value in state.tensors.items()}
    facts = json.dumps({name: value for name, value in asdict(_bare(state)).items() if name != "tensors"})
    metadata = {"state": facts, "key": key, "crc32": str(_checksum(tensors, facts))}
    content = save(tensors, metadata)
    fresh = path.with_name(path.name + ".new")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(previous(path))
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def read(path: Path, key: str) -> State:
    """Reads a checkpoint.

    Raises:
        CheckpointDamaged: The file is truncated, changed or something else.
        DatasetInvalid: It belongs to another training.
        FileNotFoundError: There is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        facts = metadata["state"]
        if int(metadata["crc32"]) != _checksum(tensors, facts):
            raise CheckpointDamaged(f"{path.name} is damaged (its checksum is wrong)")
        state = State(**json.loads(facts), tensors=tensors)
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointDamaged):
            raise
        raise CheckpointDamaged(f"{path.name} is no usable checkpoint ({error})") from error
    if metadata.get("key") != key:
        raise DatasetInvalid(
            f"{path.name} belongs to a training with other data or settings; remove it or name another file"
        )
    return state


def latest(path: Path, key: str) -> tuple[State | None, list[str]]:
    """The newest checkpoint that can be used.

    Returns:
        Its state, or None if there is none; and what was wrong with files that could not be used.

    Raises:
        DatasetInvalid: The newest usable one belongs to another training.
    """
    wrong: list[str] = []
    for candidate in (path, previous(path)):
        try:
            return read(candidate, key), wrong
        except CheckpointDamaged as error:
            wrong.append(str(error))
        except FileNotFoundError:
            if candidate == path and previous(path).exists():
                wrong.append(f"{path.name} is missing")
    return None, wrong


def remove(path: Path) -> None:
    """Removes a checkpoint and the one before it."""
    for candidate in (path, previous(path)):
        candidate.unlink(missing_ok=True)


def _bare(state: State) -> State:
    return State(state.stage, state.step, state.batch, state.rate, state.rollbacks, state.seconds, {})


def _checksum(tensors: dict[str, Tensor], facts: str) -> int:
    checksum = zlib.crc32(facts.encode())
    for name in sorted(tensors):
        checksum = zlib.crc32(name.encode(), checksum)
        checksum = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), checksum)
    return checksum


def _sync_directory(directory: Path) -> None:
    """Makes the renames as durable as the file."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
