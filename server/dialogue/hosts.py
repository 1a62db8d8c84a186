"""The model hosts as a turn uses them: started early, waited for with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import grpc.aio
from viseme.host.v1 import host_pb2

from server.errors import StageTimeout
from server.host_calls import ModelHosts
from server.store.avatars import StoredAvatar
from server.store.keys import bundle_key
from server.store.site import Site

T = TypeVar("T")


class HostAccess:
    """Gives channels to hosts that run.

    Args:
        hosts: The model hosts.
        start_seconds: Longest time to wait for one that does not run yet.
    """

    def __init__(self, hosts: ModelHosts, *, start_seconds: float) -> None:
        self._hosts = hosts
        self._start_seconds = start_seconds

    async def channel(self, name: str) -> grpc.aio.Channel:
        """A channel to a host; starts it when it does not run.

        Raises:
            StageTimeout: It did not start in time.
            VisemeError: It cannot be started.
        """
        return await self._in_time(name, self._hosts.channel(name))

    async def describe(self, name: str) -> host_pb2.DescribeResponse:
        """What a host is and has; starts it when it does not run.

        Raises:
            StageTimeout: It did not start in time.
            VisemeError: It cannot be started.
        """
        return await self._in_time(name, self._hosts.describe(name))

    async def site(self, name: str) -> Site | None:
        """The files of a host that does not see those of this machine; starts it when it does not run.

        Raises:
            StageTimeout: It did not start in time.
            VisemeError: It cannot be started.
        """
        return await self._in_time(name, self._hosts.site(name))

    async def bundle(self, name: str, avatar: StoredAvatar) -> Path:
        """The bundle of an avatar as a host sees it, which may be on another machine.

        Raises:
            VisemeError: The host cannot be started, or the bundle cannot be taken there.
        """
        site = await self.site(name)
        if site is None:
            return avatar.directory
        return Path(await site.bring(avatar.directory, bundle_key(avatar)))

    def start_early(self, *names: str) -> asyncio.Task[None]:
        """Starts hosts side by side, in the background. Errors are dropped: who needs the host meets them."""

        async def start() -> None:
            await asyncio.gather(*(self.channel(name) for name in names), return_exceptions=True)

        return asyncio.create_task(start())

    async def _in_time(self, name: str, started: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._start_seconds):
                return await started
        except TimeoutError:
            raise StageTimeout(
                f"The {name} host did not start within {self._start_seconds:g} s.",
                fix=f"viseme hosts log {name}",
                stage="start_host",
                host=name,
            ) from None
