"""Where assets are kept: `VISEME_HOME/assets`.

`blobs/SHA256` holds the contents, each once and only ever complete; `NAME/FILE` is a symbolic link to a blob,
so a host gets a directory with plain names. `blobs/SHA256.part` is the beginning of a download that was
interrupted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from server.assets.catalogue import Asset, AssetFile

CHUNK: Final = 1 << 20


class AssetState(StrEnum):
    """Whether an asset can be used."""

    INSTALLED = "installed"
    PARTIAL = "partial"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class AssetStatus:
    """An asset of the catalogue and what is there of it.

    Attributes:
        asset: The asset.
        state: Whether it is there.
        path: Directory with its files when it is installed, else None.
        installed_bytes: Bytes of its files that are there.
    """

    asset: Asset
    state: AssetState
    path: Path | None
    installed_bytes: int


class AssetStore:
    """The assets of one VISEME_HOME."""

    def __init__(self, home: Path) -> None:
        """Opens the store; nothing is written yet.

        Args:
            home: VISEME_HOME.
        """
        self.root = home / "assets"
        self.blobs = self.root / "blobs"

    def path(self, asset: Asset) -> Path | None:
        """Directory with the asset's files, or None when one of them is not there."""
        return self._directory(asset) if all(self._linked(asset, file) for file in asset.files) else None

    def status(self, asset: Asset) -> AssetStatus:
        """What is there of an asset."""
        path = self.path(asset)
        done = sum(file.size for file in asset.files if self.has(file))
        state = AssetState.INSTALLED if path else AssetState.PARTIAL if done else AssetState.MISSING
        return AssetStatus(asset, state, path, done)

    def has(self, file: AssetFile) -> bool:
        """Whether the contents of a file are there. Blobs are written whole or not at all: size tells."""
        try:
            return self.blob(file).stat().st_size == file.size
        except FileNotFoundError:
            return False

    def damaged(self, asset: Asset) -> list[AssetFile]:
        """Reads all of an asset's files and returns those that are not what they should be, or missing."""
        return [
            file for file in asset.files if not self.has(file) or sha256_of(self.blob(file)) != file.sha256
        ]

    def discard(self, file: AssetFile) -> None:
        """Removes the contents of a file, so that it is fetched again."""
        self.blob(file).unlink(missing_ok=True)

    def blob(self, file: AssetFile) -> Path:
        """Where the contents of a file are kept."""
        return self.blobs / file.sha256

    def part(self, file: AssetFile) -> Path:
        """Where the beginning of a file is kept while it is being fetched."""
        return self.blobs / f"{file.sha256}.part"

    def accept(self, file: AssetFile, path: Path) -> None:
        """Moves a complete file, whose hash the caller has checked, to its blob.

        Args:
            file: Which file it is.
            path: A file on the same file system; gone afterwards.
        """
        with path.open("rb") as content:
            os.fsync(content.fileno())
        path.chmod(0o644)
        path.replace(self.blob(file))

    def link(self, asset: Asset) -> Path:
        """Gives the asset's files their names; all contents must be there.

        Returns:
            The directory with the files.
        """
        directory = self._directory(asset)
        directory.mkdir(parents=True, exist_ok=True)
        for file in asset.files:
            if not self._linked(asset, file):
                fresh = directory / f".{file.name}.{os.getpid()}.{threading.get_ident()}"
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(Path("..") / "blobs" / file.sha256)
                fresh.replace(directory / file.name)
        return directory

    def scratch(self, asset: Asset) -> tempfile.TemporaryDirectory[str]:
        """A directory on the store's file system for what is needed while an asset is fetched."""
        return tempfile.TemporaryDirectory(prefix=self._scratch_prefix(asset), dir=self.root)

    def sweep(self, asset: Asset) -> None:
        """Removes what a process that was killed left behind; only for the holder of the asset's lock."""
        for directory in self.root.glob(f"{self._scratch_prefix(asset)}*"):
            shutil.rmtree(directory, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, asset: Asset, waiting: Callable[[], None]) -> Iterator[None]:
        """Keeps other processes and threads from installing the same asset at the same time.

        Args:
            asset: The asset.
            waiting: Called again and again while somebody else holds the lock; may raise to give up.
        """
        self.blobs.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{asset.name}.lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                    time.sleep(0.1)
            yield  # Closing the file releases the lock.

    @staticmethod
    def _scratch_prefix(asset: Asset) -> str:
        return f".fetch-{asset.name}-"

    def _directory(self, asset: Asset) -> Path:
        return self.root / asset.name

    def _linked(self, asset: Asset, file: AssetFile) -> bool:
        link = self._directory(asset) / file.name
        return link.is_symlink() and link.readlink().name == file.sha256 and self.has(file)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's contents, in hexadecimal digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
