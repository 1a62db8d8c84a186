"""The files of a host that runs on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Site(Protocol):
    """Takes files through the blob store to where a host is, and keeps what is made there.

    Keys name trees in the blob store (`server.store.trees`).
    """

    async def bring(
        self, directory: Path, key: str, names: Sequence[str] | None = None, work: str = ""
    ) -> str:
        """Takes a directory of this machine there.

        Args:
            directory: On this machine.
            key: The tree that it becomes.
            names: Which files of it; None means all.
            work: The work directory that it is for and goes with; empty: it stays for as long as the host.

        Returns:
            Where it is there; nothing in it may be changed.

        Raises:
            VisemeError: It cannot be stored or fetched.
        """

    async def open_work(self, key: str, kept: Sequence[str], turn: str = "") -> str:
        """Makes a directory there to work in, with the files that were last kept under the key.

        Files of it are kept from now on whenever they have changed. What cannot be used is left out: work
        that goes on from less than it had done is better than none.

        Args:
            key: The tree.
            kept: Names of the files that are kept.
            turn: Of who works; sorts after those of earlier ones.

        Raises:
            VisemeError: The blob store is away, or refuses.
        """

    async def publish(self, directory: str, key: str) -> None:
        """Stores a directory there that was made in a work directory as a tree.

        Raises:
            VisemeError: It cannot be stored.
        """

    async def close_work(self, directory: str) -> None:
        """Keeps the files of a work directory a last time and removes it."""
