"""Wheels of one constant, and locks that name them, for tests of environments."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

from server.hosts.installers import Pip


class Bare(Pip):
    """Makes environments without pip in them, which takes a moment only."""

    def create(self, interpreter: Path, directory: Path) -> list[str]:
        return [*super().create(interpreter, directory), "--without-pip"]


_WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel(directory: Path, name: str, text: str, version: str = "1.0") -> Path:
    """A pure wheel of one module with a constant."""
    path = directory / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"TEXT = {text!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": _WHEEL,
    }
    with zipfile.ZipFile(path, "w") as archive:
        record = ""
        for file, contents in files.items():
            archive.writestr(file, contents)
            digest = base64.urlsafe_b64encode(hashlib.sha256(contents.encode()).digest())
            record += f"{file},sha256={digest.rstrip(b'=').decode()},{len(contents)}\n"
        archive.writestr(f"{about}/RECORD", f"{record}{about}/RECORD,,\n")
    return path


def requirement(path: Path) -> str:
    """The line of a lock that names a wheel."""
    name, version = path.name.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def lock_of(wheels: list[Path], *options: str) -> str:
    """A lock with hashes."""
    return "\n".join([*options, *map(requirement, wheels), ""])


def local(wheels: list[Path]) -> str:
    """A lock that finds its wheels in their directory and nowhere else."""
    return lock_of(wheels, "--no-index", f"--find-links {wheels[0].parent}")
