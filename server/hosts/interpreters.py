"""Finds a Python for a host among those of this machine."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.hosts.manifest import PythonRange

_NEWEST: Final = (3, 20)
_OLDEST: Final = (3, 7)
_PROBE: Final = (
    "import json, platform, sys, sysconfig; "
    "print(json.dumps([list(sys.version_info[:2]), platform.python_version(), sysconfig.get_platform()]))"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that runs.

    Attributes:
        executable: Its path.
        version: Major and minor.
        full_version: All of it, such as `3.11.7`.
        platform: As `sysconfig.get_platform` says.
    """

    executable: Path
    version: tuple[int, int]
    full_version: str
    platform: str


def own_interpreter() -> Interpreter:
    """The one that runs the server."""
    return Interpreter(
        Path(sys.executable), sys.version_info[:2], platform.python_version(), sysconfig.get_platform()
    )


def find_interpreter(versions: PythonRange) -> Interpreter | None:
    """The server's own when it is in the range, else the newest that runs; None when there is none.

    Looks on PATH, at pyenv's versions and at those that uv installed. Blocks while it tries them.
    """
    own = own_interpreter()
    if own.version in versions:
        return own
    for minor in range(_NEWEST[1], _OLDEST[1] - 1, -1):
        if (3, minor) in versions:
            for executable in _candidates(f"3.{minor}"):
                found = probe(executable)
                if found is not None and found.version == (3, minor):
                    return found
    return None


def _candidates(version: str) -> Iterator[Path]:
    name = f"python{version}"
    if found := shutil.which(name):
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv/python")
    for root, pattern in ((pyenv / "versions", f"{version}.*"), (uv, f"cpython-{version}.*")):
        yield from sorted(root.glob(f"{pattern}/bin/{name}"), reverse=True)


def probe(executable: Path) -> Interpreter | None:
    """What a Python is; None when it does not run.

    A name on PATH may be a shim of a version manager that runs nothing. Blocks while it tries.
    """
    try:
        answer = subprocess.run(
            [executable, "-I", "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=True,
        )
        version, full_version, machine = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Interpreter(executable, (version[0], version[1]), full_version, machine)
