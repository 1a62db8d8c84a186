"""The files of a bundle: reading them from a directory or a .zip, and writing them in one step."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from model_hosts.talking_gaussian.avatar_info import BundleInvalid

_LIMITS = {
    "avatar.json": 1 << 20,
    "model.safetensors": 256 << 20,
    "background.png": 32 << 20,
    "thumbnail.png": 1 << 20,
}


def read_files(path: Path) -> dict[str, bytes]:
    """The four files of a bundle directory or .zip, by name.

    Raises:
        BundleInvalid: One is missing, too large or cannot be read.
    """
    return _read_zip(path) if path.is_file() else _read_directory(path)


def write_files(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes a directory, or a .zip when the name ends so, replacing what is there.

    A reader sees the old bundle or the new one, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as scratch:
        fresh = Path(scratch) / "new"
        if path.suffix == ".zip":
            with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in files.items():
                    # A fixed date makes equal bundles equal files.
                    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
            fresh.replace(path)
            return
        fresh.mkdir()
        for name, data in files.items():
            (fresh / name).write_bytes(data)
        if path.exists():
            path.rename(Path(scratch) / "old")
        fresh.rename(path)


def _read_directory(path: Path) -> dict[str, bytes]:
    if not path.is_dir():
        raise BundleInvalid("there is no such directory or .zip file")
    files = {}
    for name, limit in _LIMITS.items():
        file = path / name
        try:
            if file.stat().st_size > limit:
                raise BundleInvalid(f"{name} is larger than {limit >> 20} MiB")
            files[name] = file.read_bytes()
        except OSError as error:
            raise BundleInvalid(f"{name} cannot be read ({error.strerror})") from error
    return files


def _read_zip(path: Path) -> dict[str, bytes]:
    files = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, limit in _LIMITS.items():
                try:
                    with archive.open(name) as member:
                        data = member.read(limit + 1)
                except KeyError:
                    raise BundleInvalid(f"{name} is missing") from None
                if len(data) > limit:
                    raise BundleInvalid(f"{name} is larger than {limit >> 20} MiB")
                files[name] = data
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise BundleInvalid(f"the .zip cannot be read ({error})") from error
    return files
