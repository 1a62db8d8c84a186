"""The programs that fill an environment, uv and pip: how they are called and what their output means."""

from __future__ import annotations

import importlib.util
import re
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_REQUIREMENT: Final = re.compile(r"^[A-Za-z0-9][\w.\-]*(\[[^\]]*\])?\s*(==|@)", re.MULTILINE)
_ERROR: Final = re.compile(r"^\s*(error\b|ERROR\b|×|Error:)")
_WRONG_HASH: Final = re.compile(r"hash mismatch|do not match the hashes", re.IGNORECASE)
_DISK_FULL: Final = re.compile(r"No space left on device|os error 28\b")
_UNREACHABLE: Final = re.compile(
    r"Failed to establish a new connection|NewConnectionError|Connection refused|Max retries exceeded"
    r"|Temporary failure in name resolution|Could not resolve host|dns error|Could not connect"
    r"|CondaHTTPError|CondaConnectionError|error sending request",
    re.IGNORECASE,
)
_ERROR_LINES: Final = 12
_LAST_LINES: Final = 6


@dataclass(slots=True)
class InstallCount:
    """How many packages of how many are there."""

    total: int
    done: int = 0


class Installer(ABC):
    """A program that makes an environment and installs a lock into it."""

    @abstractmethod
    def create(self, interpreter: Path, directory: Path) -> list[str]:
        """The command that makes an empty environment."""

    @abstractmethod
    def install(self, python: Path, lock: Path, *, hashed: bool) -> list[str]:
        """The command that installs a lock, with or without hashes, into the environment of a Python."""

    @abstractmethod
    def read(self, line: str, count: InstallCount) -> None:
        """Takes from a line of the output what it says of the progress."""


class Uv(Installer):
    """uv, which installs within seconds; it does not know pip's configuration.

    Args:
        program: Path of uv.
    """

    _NUMBER: Final = re.compile(r"^(Resolved|Prepared|Installed) (\d+) packages?")

    def __init__(self, program: Path) -> None:
        self._program = str(program)

    def create(self, interpreter: Path, directory: Path) -> list[str]:
        """The command that makes an empty environment."""
        return [self._program, "venv", "--no-project", "--python", str(interpreter), str(directory)]

    def install(self, python: Path, lock: Path, *, hashed: bool) -> list[str]:
        """The command that installs a lock, with or without hashes, into the environment of a Python."""
        install = [self._program, "pip", "install", *_hashes(hashed)]
        return [*install, "--python", str(python), "--requirement", str(lock)]

    def read(self, line: str, count: InstallCount) -> None:
        """Takes from a line of the output what it says of the progress."""
        if match := self._NUMBER.match(line):
            number = int(match[2])
            if match[1] == "Resolved":
                count.total = number
            elif match[1] == "Installed":
                count.done = count.total
        elif line.lstrip().startswith(("Downloaded ", "Built ")):
            count.done = min(count.done + 1, count.total)


class Pip(Installer):
    """The venv module and the pip in it, which every Python brings along."""

    def create(self, interpreter: Path, directory: Path) -> list[str]:
        """The command that makes an empty environment."""
        return [str(interpreter), "-I", "-m", "venv", str(directory)]

    def install(self, python: Path, lock: Path, *, hashed: bool) -> list[str]:
        """The command that installs a lock, with or without hashes, into the environment of a Python."""
        install = [str(python), "-I", "-m", "pip", "install", *_hashes(hashed)]
        quiet = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        return [*install, *quiet, "--requirement", str(lock)]

    def read(self, line: str, count: InstallCount) -> None:
        """Takes from a line of the output what it says of the progress."""
        if line.startswith("Collecting "):
            # The one that is being collected is not there yet.
            count.done = min(count.done + 1, count.total - 1)
        elif line.startswith("Successfully installed"):
            count.done = count.total


def _hashes(wanted: bool) -> list[str]:
    return ["--require-hashes"] if wanted else []


def installers(made_with: str = "auto") -> list[Installer]:
    """Those of this machine: uv when it is there, then pip, whose configuration may know more indexes.

    Args:
        made_with: `auto` for both in this order, `uv` or `venv` for one of them; empty when it is not there.
    """
    uv = _find_uv() if made_with != "venv" else None
    pip = [Pip()] if made_with != "uv" else []
    return [Uv(uv), *pip] if uv is not None else [*pip]


def _find_uv() -> Path | None:
    if found := shutil.which("uv"):
        return Path(found)
    if importlib.util.find_spec("uv") is None:
        return None
    # Installed as a package, beside the server.
    from uv import find_uv_bin  # noqa: PLC0415 (optional)

    return Path(find_uv_bin())


def package_count(lock: str) -> int:
    """How many packages a lock names."""
    return len(_REQUIREMENT.findall(lock))


def wrong_hash(output: list[str]) -> bool:
    """Whether an installer failed because a package is not the one that the lock names."""
    return any(_WRONG_HASH.search(line) for line in output)


def disk_full(output: list[str]) -> bool:
    """Whether an installer failed because the disk is full."""
    return any(_DISK_FULL.search(line) for line in output)


def index_unreachable(output: list[str]) -> bool:
    """Whether an installer failed because nobody answered where the packages are."""
    return any(_UNREACHABLE.search(line) for line in output)


def useful_lines(output: list[str]) -> str:
    """What a person needs of the output of an installer that failed."""
    lines = [line.rstrip() for line in output if line.strip()]
    for number, line in enumerate(lines):
        if _ERROR.match(line):
            return "\n".join(lines[number : number + _ERROR_LINES])
    return "\n".join(lines[-_LAST_LINES:])
