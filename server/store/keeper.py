"""Keeps files of a directory in the blob store while somebody works on them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from server.errors import BlobSuperseded, VisemeError
from server.store.trees import TreeStore

_LOOK_SECONDS: Final = 0.5
_LONGEST_WAIT_SECONDS: Final = 30.0
_log = logging.getLogger(__name__)


class Keeper:
    """Publishes files whenever they have changed, from `start` to `stop`.

    The files must be replaced and not written into, as checkpoints are. While the blob store is away the
    work goes on; what there is then is published as soon as it is back.

    Args:
        trees: The blob store.
        key: The tree that holds the files.
        directory: Where they are.
        names: Of the files; they need not be there.
        turn: Of who works; once another one with a later turn has published, nothing more is.
    """

    def __init__(
        self, trees: TreeStore, key: str, directory: Path, names: Sequence[str], turn: str = ""
    ) -> None:
        self._trees = trees
        self._key = key
        self._directory = directory
        self._names = names
        self._turn = turn
        self._published: object = self._state()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._keep(), name=f"keep-{self._key}")

    async def stop(self, *, publish: bool = True) -> None:
        """Publishes what is not published yet and ends.

        Args:
            publish: Whether what there is now is worth keeping.
        """
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        if publish:
            try:
                await self._publish()
            except VisemeError as error:
                _log.warning("%s is not kept: %s", self._key, error.message)

    async def _keep(self) -> None:
        wait = _LOOK_SECONDS
        while True:
            await asyncio.sleep(wait)
            try:
                await self._publish()
                wait = _LOOK_SECONDS
            except BlobSuperseded as error:
                # As on a node that was thought lost, and whose work goes on elsewhere.
                _log.warning("%s", error.message)
                return
            except (VisemeError, OSError) as error:
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
                _log.warning("%s is not kept for now: %s", self._key, error)

    async def _publish(self) -> None:
        state = self._state()
        if state != self._published:
            # A thread cannot be stopped half-way; who stops the keeper waits for it.
            publishing = asyncio.ensure_future(
                asyncio.to_thread(
                    self._trees.publish, self._key, self._directory, self._names, turn=self._turn
                )
            )
            try:
                await asyncio.shield(publishing)
            except asyncio.CancelledError:
                with contextlib.suppress(VisemeError, OSError):
                    await publishing
                    self._published = state
                raise
            self._published = state

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Changes when a file does."""
        found: list[tuple[int, int, int] | None] = []
        for name in self._names:
            try:
                status = (self._directory / name).stat()
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except FileNotFoundError:
                found.append(None)
        return tuple(found)
