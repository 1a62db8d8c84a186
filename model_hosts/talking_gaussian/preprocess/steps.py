"""Steps whose results are kept on disk, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]

_KEY = 16
_PART = ".part"


def key_of(*parts: object) -> str:
    """Names inputs: the hash of their representations."""
    return hashlib.sha256("\0".join(repr(part) for part in parts).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a file beside `path`, then puts it in its place: there is never half a file."""
    part = path.with_name(f"{path.stem}{_PART}{path.suffix}")
    try:
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Result:
    """The result of a step.

    Attributes:
        path: Its file.
        key: What it was made from; part of the key of every step that reads it.
    """

    path: Path
    key: str

    def arrays(self) -> Arrays:
        """The arrays of a step that keeps arrays."""
        with np.load(self.path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}


class Steps:
    """The kept results of one recording: one file for each step, named after the inputs it was made from."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def file(
        self, name: str, suffix: str, inputs: tuple[object, ...], write: Callable[[Path], None]
    ) -> Result:
        """The file of a step; `write` makes it unless it was made from the same inputs before.

        Args:
            name: Of the step.
            suffix: Of the file, with its dot.
            inputs: Everything the result depends on; results of other steps by their keys.
            write: Makes the file.
        """
        key = key_of(name, *inputs)
        path = self._directory / f"{name}-{key[:_KEY]}{suffix}"
        if not path.exists():
            for old in self._directory.glob(f"{name}-*"):
                old.unlink()
            write_atomically(path, write)
        return Result(path, key)

    def arrays(
        self, name: str, inputs: tuple[object, ...], compute: Callable[[], Mapping[str, Any]]
    ) -> Result:
        """The same for a step whose result is arrays."""

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, allow_pickle=False, **compute())

        return self.file(name, ".npz", inputs, write)
