"""conda, mamba and micromamba: how they are called, and where they are."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from server.hosts.installers import InstallCount, Installer

PROGRAMS: Final = ("micromamba", "mamba", "conda")
"""Quickest first."""
_EXPLICIT: Final = re.compile(r"^@EXPLICIT\s*$", re.MULTILINE)


class Conda(Installer):
    """A program of the conda family, which brings along the Python too.

    Args:
        program: Path of conda, mamba or micromamba.
        file: An `environment.yml`, or a list of exact packages with hashes (`conda list --explicit --md5`).
    """

    def __init__(self, program: Path, file: Path) -> None:
        self._program = program
        self._file = file

    def create(self, interpreter: Path, directory: Path) -> list[str]:
        """The command that makes the whole environment; the interpreter is conda's own."""
        micro = self._program.name.startswith("micromamba")
        # conda and mamba read an environment.yml only with `env create`, which never asks and which older
        # versions refuse `--yes` for.
        whole = ["create", "--yes"] if micro or is_explicit(self._file) else ["env", "create"]
        return [str(self._program), *whole, "--prefix", str(directory), "--file", str(self._file)]

    def install(self, python: Path, lock: Path, *, hashed: bool) -> list[str]:
        """Nothing: `create` has installed everything."""
        return []

    def read(self, line: str, count: InstallCount) -> None:
        """Conda's bars say nothing of how many packages there are."""


def is_explicit(file: Path) -> bool:
    """Whether a file lists exact packages by URL."""
    return _EXPLICIT.search(file.read_text(encoding="utf-8")) is not None


def find_conda(named: Path | None = None) -> Path | None:
    """The program that was named, else the quickest on PATH, else the one whose shell this is."""
    if named is not None:
        found = shutil.which(str(named.expanduser()))
        return Path(found) if found else None
    for program in PROGRAMS:
        if found := shutil.which(program):
            return Path(found)
    for variable in ("MAMBA_EXE", "CONDA_EXE"):
        if (path := os.environ.get(variable)) and os.access(path, os.X_OK):
            return Path(path)
    return None
