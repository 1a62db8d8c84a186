"""Hosts that do nothing but end when they are placed elsewhere."""

from __future__ import annotations

import asyncio

import grpc.aio
from viseme.host.v1 import host_pb2


class StillHosts:
    """`server.host_calls.ModelHosts` for who only places them.

    Args:
        exit_seconds: How long a process takes to end.
    """

    def __init__(self, exit_seconds: float) -> None:
        self._exit_seconds = exit_seconds

    async def channel(self, name: str) -> grpc.aio.Channel:
        raise NotImplementedError

    async def describe(self, name: str) -> host_pb2.DescribeResponse:
        raise NotImplementedError

    async def site(self, name: str) -> None:
        return None

    async def place(self, name: str, device: str | None) -> None:
        if device is None:
            await asyncio.sleep(self._exit_seconds)

    def is_elsewhere(self, name: str) -> bool:
        return False

    def pid(self, name: str) -> int | None:
        return None
