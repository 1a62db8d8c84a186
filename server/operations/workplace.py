"""Where an avatar is made: beside its recording on this machine, or where the train host runs.

With a blob store the checkpoint, the recording and the bundle are in it as well, so that what one machine has
done is not lost with it (`server.store.keys`).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from server.errors import AvatarExists, BlobDamaged, BundleInvalid, FieldInvalid, InternalError, VisemeError
from server.store.avatars import AvatarStore, StoredAvatar
from server.store.keeper import Keeper
from server.store.keys import bundle_key, bundles, everything, recording_key, training_key, video_key
from server.store.recordings import StoredRecording
from server.store.site import Site
from server.store.trees import TreeStore

_PREVIEW_SECONDS: Final = 3.0
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("workplace")


@dataclass(frozen=True, slots=True)
class Preparation:
    """Paths of a preparation as the host sees them.

    Attributes:
        video: The video as it was uploaded.
        recording: Directory that is made of it.
    """

    video: str
    recording: str


@dataclass(frozen=True, slots=True)
class Training:
    """Paths of a training as the host sees them.

    Attributes:
        recording: Directory of the prepared recording.
        bundle: Directory to write the bundle to.
        checkpoint: File of the state.
        preview: File of the latest picture.
    """

    recording: str
    bundle: str
    checkpoint: str
    preview: str


class Workplaces:
    """Opens the places in which avatars are made.

    Args:
        trees: The blob store, when there is one.
    """

    def __init__(self, trees: TreeStore | None = None) -> None:
        self._trees = trees

    @asynccontextmanager
    async def preparing(self, recording: StoredRecording, site: Site | None) -> AsyncIterator[Preparation]:
        """Where a video becomes a recording, which is beside the video once the context has ended well.

        Args:
            recording: The recording.
            site: Files of the host, when it does not see those of this machine.

        Raises:
            VisemeError: The blob store is away or refuses.
        """
        if site is None:
            yield Preparation(str(recording.video), str(recording.prepared))
        else:
            trees, key = self._required(), video_key(recording)
            work = await site.open_work(key, [])
            try:
                video = await site.bring(recording.directory, key, [recording.video.name], work)
                yield Preparation(f"{video}/{recording.video.name}", f"{work}/recording")
                await site.publish(f"{work}/recording", recording_key(recording))
                await asyncio.to_thread(_replace, trees, recording_key(recording), recording.prepared)
            finally:
                await site.close_work(work)
            await asyncio.to_thread(trees.delete, key)
        if self._trees is not None and site is None:
            await asyncio.to_thread(self._trees.publish, recording_key(recording), recording.prepared)

    @asynccontextmanager
    async def training(
        self, recording: StoredRecording, bundle: Path, site: Site | None, turn: str
    ) -> AsyncIterator[Training]:
        """Where a recording becomes a bundle, which is on this machine once the context has ended well.

        Args:
            recording: The recording.
            bundle: Directory of the bundle on this machine.
            site: Files of the host, when it does not see those of this machine.
            turn: Sorts after those of earlier attempts, which may go on where a node was thought lost.

        Raises:
            VisemeError: The blob store is away or refuses.
        """
        checkpoint, preview = recording.checkpoint.name, recording.preview.name
        kept = [checkpoint, f"{checkpoint}.previous", preview]
        key = training_key(recording)
        if site is None:
            here = Training(
                str(recording.prepared), str(bundle), str(recording.checkpoint), str(recording.preview)
            )
            if self._trees is None:
                yield here
                return
            if not recording.checkpoint.exists():
                await asyncio.to_thread(self._trees.fetch_usable, key, recording.directory)
            keeper = Keeper(self._trees, key, recording.directory, kept, turn)
            keeper.start()
            try:
                yield here
            finally:
                await keeper.stop()
            return
        trees = self._required()
        work = await site.open_work(key, kept, turn)
        looking = asyncio.create_task(self._copy_preview(trees, key, recording))
        try:
            there = await site.bring(recording.prepared, recording_key(recording), work=work)
            yield Training(there, f"{work}/bundle", f"{work}/{checkpoint}", f"{work}/{preview}")
            # On its way: the bundle has its own key once it is an avatar's.
            await site.publish(f"{work}/bundle", f"{key}/bundle")
            await asyncio.to_thread(trees.fetch, f"{key}/bundle", bundle)
        finally:
            looking.cancel()
            await site.close_work(work)

    async def keep_bundle(self, avatar: StoredAvatar) -> None:
        """Puts the bundle of an avatar into the blob store.

        Raises:
            VisemeError: The blob store is away or refuses.
        """
        if self._trees is not None:
            await asyncio.to_thread(self._trees.publish, bundle_key(avatar), avatar.directory)

    async def restore(self, avatars: AvatarStore) -> None:
        """Fetches the bundles that the blob store has and this machine has not. Failures are logged.

        Args:
            avatars: The store of their owner.
        """
        if self._trees is None:
            return
        try:
            await asyncio.to_thread(_restore, self._trees, avatars)
        except VisemeError as error:
            _log.warning("bundles_not_restored", problem=error.message)

    async def finished(self, recording: StoredRecording) -> None:
        """Forgets the state of a training whose avatar is stored."""
        if self._trees is not None:
            await asyncio.to_thread(self._trees.delete, training_key(recording))

    async def forget(self, avatars: AvatarStore, identifier: str) -> None:
        """Removes everything of an avatar from the blob store.

        Args:
            avatars: The store of its owner.
            identifier: Last segment of the avatar's name.

        Raises:
            VisemeError: The blob store is away or refuses.
        """
        if self._trees is not None:
            for key in everything(avatars.root, identifier):
                await asyncio.to_thread(self._trees.delete, key)

    def _required(self) -> TreeStore:
        if self._trees is None:
            raise InternalError("A host on another machine needs a blob store.")
        return self._trees

    async def _copy_preview(self, trees: TreeStore, key: str, recording: StoredRecording) -> None:
        digest: str | None = None
        while True:
            await asyncio.sleep(_PREVIEW_SECONDS)
            with contextlib.suppress(VisemeError, OSError):
                latest = await asyncio.to_thread(trees.digest, key)
                if latest != digest:
                    digest = latest
                    await asyncio.to_thread(
                        trees.fetch_usable, key, recording.directory, {recording.preview.name}
                    )


def _restore(trees: TreeStore, avatars: AvatarStore) -> None:
    trees.sweep()
    for key in trees.keys(bundles(avatars.root)):
        identifier = key.rpartition("/")[2]
        try:
            avatars.check_new_name(identifier)
            with tempfile.TemporaryDirectory(prefix=".restore-", dir=avatars.root) as place:
                trees.fetch(key, Path(place) / "bundle")
                avatars.place(Path(place) / "bundle", identifier)
            _log.info("bundle_restored", avatar=identifier)
        except AvatarExists:
            continue
        except (BlobDamaged, BundleInvalid, FieldInvalid) as error:
            _log.warning("bundle_not_restored", avatar=identifier, problem=error.message)


def _replace(trees: TreeStore, key: str, directory: Path) -> None:
    """Fetches a tree in place of a directory; the old one stays when that fails."""
    place = Path(tempfile.mkdtemp(prefix=".fetched-", dir=directory.parent))
    try:
        trees.fetch(key, place / "tree")
        shutil.rmtree(directory, ignore_errors=True)
        (place / "tree").rename(directory)
    finally:
        shutil.rmtree(place, ignore_errors=True)
