"""Directories in a blob store: a manifest that is written last, and an object for each file's contents.

::

    KEY/objects/SHA256     contents, named after themselves
    KEY/tree.json          {"files": [{"path", "sha256", "size"}], "turn": ""}

Whoever reads the manifest finds all that it names, or is told what is damaged: contents are checked against
their hash. A new manifest replaces the old one at once; contents that it does not name any more go then. A
tree that several write, one after the other, has turns: who comes with an earlier one than it has is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from server.errors import BlobDamaged, BlobNotFound, BlobSuperseded
from server.media.spool import disk_full_as_error
from server.store.blobs import Blobs

_MANIFEST: Final = "tree.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of a tree.

    Attributes:
        path: Relative, with `/`.
        sha256: Of its contents.
        size: In bytes.
    """

    path: str
    sha256: str
    size: int


class TreeStore:
    """Trees of files in a blob store. Its methods block; they may be called from any thread.

    Args:
        blobs: The store.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def publish(self, key: str, root: Path, names: Iterable[str] | None = None, *, turn: str = "") -> str:
        """Stores files as a tree, in place of the one that is there.

        Contents that the tree has already are not sent again. A file that is replaced meanwhile is stored as
        it was or as it is.

        Args:
            key: The tree.
            root: Directory of the files.
            names: Which, relative to it; None means all. Those that are not there are left out.
            turn: Sorts after those of earlier writers.

        Returns:
            Its digest, which changes with every file.

        Raises:
            BlobSuperseded: Another one writes it by now.
            VisemeError: The store is away or refuses.
        """
        paths = [root / name for name in names] if names is not None else sorted(root.rglob("*"))
        before = {file.sha256 for file in self._known(key, turn)}
        files: list[TreeFile] = []
        for path in paths:
            if not path.is_file():
                continue
            # One descriptor for both looks at it: the name may come to mean another file in between.
            with path.open("rb") as source:
                file = TreeFile(path.relative_to(root).as_posix(), *_measure(source))
                if file.sha256 not in before | {other.sha256 for other in files}:
                    self._blobs.put(_object(key, file.sha256), source)
            files.append(file)
        # Once more: contents may have taken long to send.
        self._known(key, turn)
        told = {"files": [asdict(file) for file in files], "turn": turn}
        content = json.dumps(told, sort_keys=True).encode()
        self._blobs.write(f"{key}/{_MANIFEST}", content)
        self._blobs.delete([_object(key, sha256) for sha256 in before - {file.sha256 for file in files}])
        return hashlib.sha256(content).hexdigest()

    def digest(self, key: str) -> str | None:
        """The digest of a tree, or None when there is none.

        Raises:
            VisemeError: The store is away or refuses.
        """
        try:
            return hashlib.sha256(self._blobs.read(f"{key}/{_MANIFEST}")).hexdigest()
        except BlobNotFound:
            return None

    def keys(self, prefix: str) -> list[str]:
        """Keys of all trees below one, in order.

        Raises:
            VisemeError: The store is away or refuses.
        """
        end = f"/{_MANIFEST}"
        return [key.removesuffix(end) for key in self._blobs.keys(prefix) if key.endswith(end)]

    def sweep(self) -> None:
        """Removes what uploads that were killed have left, a day later.

        Raises:
            VisemeError: The store is away or refuses.
        """
        self._blobs.sweep()

    def fetch(self, key: str, directory: Path) -> None:
        """Writes a tree to a new directory, which appears whole or not at all.

        Raises:
            BlobNotFound: There is none.
            BlobDamaged: Something in it is not what was stored.
            VisemeError: The store is away or refuses.
            DiskFull: It does not fit.
        """
        files = self._manifest(key)[0]
        with disk_full_as_error():
            directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            incoming = Path(tempfile.mkdtemp(prefix=".fetch-", dir=directory.parent))
        try:
            for file in files:
                self._fetch_file(key, file, incoming / file.path)
            with disk_full_as_error():
                incoming.rename(directory)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def fetch_usable(
        self, key: str, directory: Path, only: Collection[str] | None = None
    ) -> Mapping[str, str]:
        """Writes the files of a tree that can be had into a directory, each whole or not at all.

        Args:
            key: The tree.
            directory: Where they go, over those that are there.
            only: Which; None means all.

        Returns:
            What was wrong with the others, by name.

        Raises:
            VisemeError: The store is away or refuses.
            DiskFull: It does not fit.
        """
        wrong: dict[str, str] = {}
        try:
            files = self._manifest(key)[0]
        except BlobNotFound:
            return wrong
        except BlobDamaged as error:
            return {_MANIFEST: error.message}
        for file in files:
            if only is not None and file.path not in only:
                continue
            target = directory / file.path
            fresh = target.with_name(f".fetch-{target.name}")
            try:
                self._fetch_file(key, file, fresh)
                fresh.replace(target)
            except (BlobNotFound, BlobDamaged) as error:
                _log.warning("%s of %s is left out: %s", file.path, key, error.message)
                wrong[file.path] = error.message
            finally:
                fresh.unlink(missing_ok=True)
        return wrong

    def delete(self, key: str) -> None:
        """Removes a tree, its manifest first."""
        self._blobs.delete([f"{key}/{_MANIFEST}"])
        self._blobs.delete(self._blobs.keys(key))

    def _fetch_file(self, key: str, file: TreeFile, target: Path) -> None:
        with disk_full_as_error():
            target.parent.mkdir(parents=True, exist_ok=True)
            stream = target.open("w+b")
        with stream:
            try:
                self._blobs.get(_object(key, file.sha256), stream)
            except BlobNotFound:
                raise BlobDamaged(f"{file.path} of {key} is missing in the blob store.", key=key) from None
            stream.seek(0)
            if _measure(stream) != (file.sha256, file.size):
                raise BlobDamaged(f"{file.path} of {key} is damaged in the blob store.", key=key)

    def _manifest(self, key: str) -> tuple[list[TreeFile], str]:
        """The files of a tree, and whose turn it was."""
        content = self._blobs.read(f"{key}/{_MANIFEST}")
        try:
            told = json.loads(content)
            files = [TreeFile(**entry) for entry in told["files"]]
            if all(_is_below(file.path) and len(file.sha256) == 64 for file in files):
                return files, str(told["turn"])
        except (ValueError, KeyError, TypeError):
            pass
        raise BlobDamaged(f"The list of files of {key} is damaged in the blob store.", key=key)

    def _known(self, key: str, turn: str) -> list[TreeFile]:
        """What a tree has that is about to be replaced.

        Raises:
            BlobSuperseded: It is of a later turn.
        """
        try:
            files, theirs = self._manifest(key)
        except (BlobNotFound, BlobDamaged):
            return []
        if theirs > turn:
            raise BlobSuperseded(f"{key} is written by another one by now.", key=key)
        return files


def _object(key: str, sha256: str) -> str:
    return f"{key}/objects/{sha256}"


def _measure(source: IO[bytes]) -> tuple[str, int]:
    digest = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]  # any binary file does
    return digest, source.tell()


def _is_below(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts
