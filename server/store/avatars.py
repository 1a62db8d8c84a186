"""Avatars on disk: those that ship with viseme and those that were imported.

A stored avatar is the directory of its bundle, `home/store/avatars/ID/`. Directories appear and vanish whole:
an import is prepared beside them and renamed into place, a deletion renames first. Names that begin with a
dot belong to imports and deletions under way; what a killed process left is swept an hour later.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from server.errors import AvatarExists, AvatarNotFound, AvatarNotReady, BundleInvalid, FieldInvalid
from server.media.spool import disk_full_as_error
from server.store.bundle_files import BUNDLE_FILES, AvatarInfo, check_bundle, unpack_bundle
from server.store.left_over import sweep
from server.store.paths import ResourceName, parse_resource_name
from server.store.recordings import RecordingStore

BUILTIN: Final = Path(__file__).with_name("builtin") / "avatars"
_ZIP_DATE: Final = (1980, 1, 1, 0, 0, 0)
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("avatars")


@dataclass(frozen=True, slots=True)
class StoredAvatar:
    """An avatar in the store.

    Attributes:
        name: `avatars/ID`.
        directory: Its bundle.
        info: Its avatar.json.
        size_bytes: Size of the files of the bundle.
        created: When it was stored here; when it was built, for one that ships with viseme.
        builtin: Whether it ships with viseme.
    """

    name: str
    directory: Path
    info: AvatarInfo
    size_bytes: int
    created: datetime
    builtin: bool

    def thumbnail(self) -> bytes:
        """The small PNG of the avatar."""
        return (self.directory / "thumbnail.png").read_bytes()


class AvatarStore:
    """The avatars of this server. Its methods block; they may be called from any thread.

    Args:
        root: Directory of the imported avatars; made when it is missing.
        max_bundle_bytes: Largest bundle, packed.
        max_unpacked_bytes: Largest bundle, unpacked.
        builtin: Directory of the avatars that ship with viseme.
        recordings: What avatars are made of: tells those that are not trained yet from those that are not
            there.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bundle_bytes: int,
        max_unpacked_bytes: int,
        builtin: Path = BUILTIN,
        recordings: RecordingStore | None = None,
    ) -> None:
        self._root = root
        self._recordings = recordings
        self._builtin = builtin
        self._max_bundle_bytes = max_bundle_bytes
        self._max_unpacked_bytes = max_unpacked_bytes
        self._placing = threading.Lock()
        with disk_full_as_error():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(root)

    @property
    def root(self) -> Path:
        """Directory of the imported avatars; what `place` takes must be on its file system."""
        return self._root

    def get(self, name: str) -> StoredAvatar:
        """Returns one avatar.

        Args:
            name: `avatars/ID`.

        Raises:
            AvatarNotFound: There is none of this name.
            AvatarNotReady: It is not trained yet.
            BundleInvalid: There is, but its files are damaged.
            FieldInvalid: The name is not a resource name.
        """
        resource = parse_resource_name(name, "avatars")
        directory = self._directory(resource)
        if directory is None:
            if self._recordings is not None and self._recordings.get(resource.id) is not None:
                raise AvatarNotReady(
                    f"{name} is not trained yet.", fix=f"viseme avatars watch {name}", avatar=name
                )
            raise AvatarNotFound(f"There is no avatar {name}.", fix="viseme avatars list", avatar=name)
        return self._read(resource, directory)

    def list(self) -> list[StoredAvatar]:
        """All avatars, ordered by name. One whose files are damaged is left out and logged."""
        identifiers = {
            entry.name
            for root in (self._builtin, self._root)
            if root.is_dir()
            for entry in root.iterdir()
            if entry.is_dir() and not entry.name.startswith(".")
        }
        avatars = []
        for identifier in sorted(identifiers):
            try:
                avatars.append(self.get(f"avatars/{identifier}"))
            except (BundleInvalid, FieldInvalid, AvatarNotFound) as error:
                _log.warning("avatar_damaged", avatar=identifier, problem=error.message)
        return avatars

    def import_zip(self, archive: Path, identifier: str) -> StoredAvatar:
        """Stores a bundle under a new name. When anything is wrong with it, nothing is stored.

        Args:
            archive: The .zip, which may come from anywhere and is not trusted.
            identifier: Last segment of the new name.

        Raises:
            AvatarExists: The name is taken.
            BundleInvalid: It is not a valid bundle.
            FieldInvalid: The name is not allowed.
            DiskFull: It does not fit.
        """
        resource = self.check_new_name(identifier)
        if archive.stat().st_size > self._max_bundle_bytes:
            raise bundle_too_large(self._max_bundle_bytes)
        with disk_full_as_error():
            incoming = Path(tempfile.mkdtemp(prefix=".import-", dir=self._root))
        try:
            with disk_full_as_error():
                unpack_bundle(archive, incoming, self._max_unpacked_bytes)
            check_bundle(incoming)
            with self._placing:
                # rename() would replace an empty directory; nobody else places one while the lock is held.
                if self._directory(resource) is not None:
                    raise _exists(resource)
                incoming.chmod(0o700)
                incoming.rename(self._root / resource.id)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        return self.get(str(resource))

    def place(self, bundle: Path, identifier: str) -> StoredAvatar:
        """Stores a bundle that was made on this machine, in place of the one of this name when there is one.

        Args:
            bundle: Its directory, on the same file system as the store; it is moved.
            identifier: Last segment of the avatar's name.

        Raises:
            BundleInvalid: It is not a valid bundle.
            FieldInvalid: The name is not allowed, or belongs to an avatar that ships with viseme.
        """
        resource = parse_resource_name(f"avatars/{identifier}", "avatars")
        check_bundle(bundle)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._placing:
            if (self._builtin / resource.id).is_dir():
                raise FieldInvalid(f"{resource} ships with viseme and cannot be replaced.", field="name")
            former = self._root / resource.id
            leaving = Path(tempfile.mkdtemp(prefix=".delete-", dir=self._root))
            if former.is_dir():
                former.rename(leaving / resource.id)
            bundle.chmod(0o700)
            bundle.rename(former)
        shutil.rmtree(leaving, ignore_errors=True)
        return self.get(str(resource))

    def check_new_name(self, identifier: str) -> ResourceName:
        """The resource name for a new avatar.

        Raises:
            AvatarExists: The name is taken.
            FieldInvalid: The name is not allowed.
        """
        resource = parse_resource_name(f"avatars/{identifier}", "avatars")
        if self._directory(resource) is not None:
            raise _exists(resource)
        return resource

    def export_zip(self, name: str, archive: Path) -> None:
        """Writes an avatar as a bundle (.zip). The same avatar always gives the same bytes.

        Args:
            name: `avatars/ID`.
            archive: The file to write.

        Raises:
            AvatarNotFound: There is none of this name.
            DiskFull: It does not fit.
        """
        avatar = self.get(name)
        with disk_full_as_error(), zipfile.ZipFile(archive, "w") as target:
            for file in BUNDLE_FILES:
                entry = zipfile.ZipInfo(file, _ZIP_DATE)
                entry.external_attr = 0o644 << 16
                # Half-precision weights and PNGs hardly shrink: stored, export and import take no time.
                compressed = file.endswith(".json")
                entry.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
                with (avatar.directory / file).open("rb") as source, target.open(entry, "w") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)

    def delete(self, name: str) -> None:
        """Deletes an imported avatar.

        Raises:
            AvatarNotFound: There is none of this name.
            FieldInvalid: It ships with viseme.
        """
        resource = parse_resource_name(name, "avatars")
        with self._placing:
            directory = self._directory(resource)
            if directory is None:
                raise AvatarNotFound(f"There is no avatar {name}.", fix="viseme avatars list", avatar=name)
            if directory.parent == self._builtin:
                raise FieldInvalid(f"{name} ships with viseme and cannot be deleted.", field="name")
            with disk_full_as_error():
                leaving = Path(tempfile.mkdtemp(prefix=".delete-", dir=self._root))
                directory.rename(leaving / resource.id)
        shutil.rmtree(leaving, ignore_errors=True)

    def _directory(self, resource: ResourceName) -> Path | None:
        for root in (self._builtin, self._root):
            if (root / resource.id).is_dir():
                return root / resource.id
        return None

    def _read(self, resource: ResourceName, directory: Path) -> StoredAvatar:
        info = check_bundle(directory)
        builtin = directory.parent == self._builtin
        return StoredAvatar(
            name=str(resource),
            directory=directory,
            info=info,
            size_bytes=sum((directory / file).stat().st_size for file in BUNDLE_FILES),
            created=info.created if builtin else datetime.fromtimestamp(directory.stat().st_mtime, UTC),
            builtin=builtin,
        )


def bundle_too_large(limit: int) -> BundleInvalid:
    """The error for a .zip of more than `limit` bytes."""
    return BundleInvalid(f"The bundle is larger than the {limit // 1024**2} MiB this server accepts.")


def _exists(resource: ResourceName) -> AvatarExists:
    return AvatarExists(
        f"There is already an avatar {resource}.",
        fix=f"Choose another name, or delete it first: viseme avatars delete {resource}",
        avatar=str(resource),
    )
