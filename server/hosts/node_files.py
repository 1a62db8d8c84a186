"""The files of hosts on this node, as a server elsewhere asks for them: a `server.store.site.Site`."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.errors import BlobNotFound, FieldInvalid
from server.hosts.private_directory import PrivateDirectory
from server.store.keeper import Keeper
from server.store.trees import TreeStore

_BORROWED: Final = ".borrowed"


@dataclass(frozen=True, slots=True)
class _Work:
    directory: Path
    keeper: Keeper


class NodeFiles:
    """Brings trees of the blob store here and keeps what is made here.

    Args:
        trees: The blob store.
        root: Where everything is; `close` removes what this one has made.
    """

    def __init__(self, trees: TreeStore, root: Path) -> None:
        self._trees = trees
        self._root = root
        self._directory: PrivateDirectory | None = None
        self._work: dict[str, _Work] = {}
        self._borrowing = asyncio.Lock()

    async def borrow(self, key: str, work: str = "") -> str:
        """A directory with the files of a tree, fetched once for as long as it does not change.

        Args:
            key: The tree.
            work: The work directory that it is for and goes with; empty: it stays until `close`.

        Raises:
            VisemeError: The tree cannot be had.
        """
        async with self._borrowing:
            digest = await asyncio.to_thread(self._trees.digest, key)
            if digest is None:
                raise BlobNotFound(f"There is no {key} in the blob store.")
            owner = self._work[work].directory if work in self._work else self._own()
            directory = owner / _BORROWED / digest
            if not directory.is_dir():
                await asyncio.to_thread(self._trees.fetch, key, directory)
            return str(directory)

    async def open_work(self, key: str, kept: Sequence[str], turn: str = "") -> str:
        """A directory to work in, with the usable files that were last kept under the key.

        Args:
            key: The tree.
            kept: Names of the files that are kept whenever they have changed.
            turn: Of who works; sorts after those of earlier ones.

        Raises:
            VisemeError: The blob store is away, or refuses.
        """
        directory = self._own() / f"work-{secrets.token_hex(4)}"
        directory.mkdir(mode=0o700)
        if kept:
            await asyncio.to_thread(self._trees.fetch_usable, key, directory)
        keeper = Keeper(self._trees, key, directory, kept, turn)
        keeper.start()
        self._work[str(directory)] = _Work(directory, keeper)
        return str(directory)

    async def publish(self, directory: str, key: str) -> None:
        """Stores a directory that was made in a work directory as a tree.

        Raises:
            VisemeError: It cannot be stored, or is not in a work directory.
        """
        if not any(Path(directory).is_relative_to(work) for work in self._work):
            raise FieldInvalid(f"{directory} is in no work directory.")
        await asyncio.to_thread(self._trees.publish, key, Path(directory))

    async def close_work(self, directory: str) -> None:
        """Keeps the files of a work directory a last time and removes it."""
        work = self._work.pop(directory, None)
        if work is not None:
            await work.keeper.stop()
            await asyncio.to_thread(shutil.rmtree, work.directory, ignore_errors=True)

    async def close(self) -> None:
        """Ends all work and removes what was brought here."""
        for directory in list(self._work):
            await self.close_work(directory)
        if self._directory is not None:
            await asyncio.to_thread(self._directory.close)
            self._directory = None

    def _own(self) -> Path:
        if self._directory is None:
            self._directory = PrivateDirectory(self._root)
        return self._directory.path
