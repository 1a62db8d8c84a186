"""The files of a host that runs on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Site(Protocol):
    """Brings trees of the blob store to where a host is, and keeps what is made there.

    Paths are those of the host's machine. Keys name trees in the blob store (`server.store.trees`).
    """

    async def borrow(self, key: str) -> str:
        """A directory with the files of a tree, which must not be changed.

        Raises:
            VisemeError: The tree cannot be had.
        """

    async def open_work(self, key: str, kept: Sequence[str]) -> str:
        """A directory to work in, with the files that were last kept under the key.

        Files of it are kept from now on whenever they have changed. What cannot be used is left out: work
        that goes on from less than it had done is better than none.

        Args:
            key: The tree.
            kept: Names of the files that are kept.

        Raises:
            VisemeError: The blob store is away, or refuses.
        """

    async def publish(self, directory: str, key: str) -> None:
        """Stores a directory that was made there as a tree.

        Raises:
            VisemeError: It cannot be stored.
        """

    async def close_work(self, directory: str) -> None:
        """Keeps the files a last time and removes the directory."""
