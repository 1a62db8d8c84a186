"""What operators ask of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import grpc
import grpc.aio

from viseme import _messages as messages
from viseme._calls import async_errors, errors
from viseme._types import Gpu, Host, Lease, ServerStatus
from viseme.v1 import admin_pb2, admin_pb2_grpc

if TYPE_CHECKING:
    # It exists for type checkers only: at run time one stub serves both kinds of channel.
    from viseme.v1.admin_pb2_grpc import AdminServiceAsyncStub


class Admin:
    """For the operator of a server; `Client.admin`."""

    def __init__(self, channel: grpc.Channel, address: str, timeout: float) -> None:
        self._stub = admin_pb2_grpc.AdminServiceStub(channel)
        self._address = address
        self._timeout = timeout

    def status(self) -> ServerStatus:
        """What the server is and how it is doing."""
        with errors(self._address):
            return messages.status_value(
                self._stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=self._timeout)
            )

    def hosts(self) -> list[Host]:
        """The model hosts, running or not."""
        hosts, token = [], ""
        with errors(self._address):
            while True:
                request = admin_pb2.ListHostsRequest(page_token=token)
                response = self._stub.ListHosts(request, timeout=self._timeout)
                hosts += [messages.host_value(message) for message in response.hosts]
                token = response.next_page_token
                if not token:
                    return hosts

    def restart_host(self, name: str, grace: float | None = None) -> Host:
        """Stops a host after its running calls (at most `grace` seconds) and starts it again."""
        with errors(self._address):
            return messages.host_value(self._stub.RestartHost(messages.restart_request(name, grace)))

    def host_log(self, name: str, lines: int = 100) -> str:
        """The end of a host's log."""
        request = admin_pb2.GetHostLogRequest(name=messages.resource("hosts", name), lines=lines)
        with errors(self._address):
            return self._stub.GetHostLog(request, timeout=self._timeout).text

    def gpus(self) -> tuple[list[Gpu], str]:
        """The devices that models run on, and why there is no GPU among them, where there is none."""
        with errors(self._address):
            response = self._stub.ListGpus(admin_pb2.ListGpusRequest(), timeout=self._timeout)
        return [messages.gpu_value(message) for message in response.gpus], response.problem

    def leases(self) -> list[Lease]:
        """Who holds memory of a device, and who waits for it and why."""
        with errors(self._address):
            response = self._stub.ListLeases(admin_pb2.ListLeasesRequest(), timeout=self._timeout)
        return [messages.lease_value(message) for message in response.leases]

    def drain(self, name: str, undo: bool = False) -> Gpu:
        """Places nothing more on a device and asks its holders to leave, or uses it again."""
        request = admin_pb2.DrainGpuRequest(name=messages.resource("gpus", name), undo=undo)
        with errors(self._address):
            return messages.gpu_value(self._stub.DrainGpu(request, timeout=self._timeout))


class AsyncAdmin:
    """For the operator of a server; `AsyncClient.admin`."""

    def __init__(self, channel: grpc.aio.Channel, address: str, timeout: float) -> None:
        self._stub = cast("AdminServiceAsyncStub", admin_pb2_grpc.AdminServiceStub(channel))
        self._address = address
        self._timeout = timeout

    async def status(self) -> ServerStatus:
        """What the server is and how it is doing."""
        async with async_errors(self._address):
            return messages.status_value(
                await self._stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=self._timeout)
            )

    async def hosts(self) -> list[Host]:
        """The model hosts, running or not."""
        hosts, token = [], ""
        async with async_errors(self._address):
            while True:
                request = admin_pb2.ListHostsRequest(page_token=token)
                response = await self._stub.ListHosts(request, timeout=self._timeout)
                hosts += [messages.host_value(message) for message in response.hosts]
                token = response.next_page_token
                if not token:
                    return hosts

    async def restart_host(self, name: str, grace: float | None = None) -> Host:
        """Stops a host after its running calls (at most `grace` seconds) and starts it again."""
        async with async_errors(self._address):
            return messages.host_value(await self._stub.RestartHost(messages.restart_request(name, grace)))

    async def host_log(self, name: str, lines: int = 100) -> str:
        """The end of a host's log."""
        request = admin_pb2.GetHostLogRequest(name=messages.resource("hosts", name), lines=lines)
        async with async_errors(self._address):
            return (await self._stub.GetHostLog(request, timeout=self._timeout)).text

    async def gpus(self) -> tuple[list[Gpu], str]:
        """The devices that models run on, and why there is no GPU among them, where there is none."""
        async with async_errors(self._address):
            response = await self._stub.ListGpus(admin_pb2.ListGpusRequest(), timeout=self._timeout)
        return [messages.gpu_value(message) for message in response.gpus], response.problem

    async def leases(self) -> list[Lease]:
        """Who holds memory of a device, and who waits for it and why."""
        async with async_errors(self._address):
            response = await self._stub.ListLeases(admin_pb2.ListLeasesRequest(), timeout=self._timeout)
        return [messages.lease_value(message) for message in response.leases]

    async def drain(self, name: str, undo: bool = False) -> Gpu:
        """Places nothing more on a device and asks its holders to leave, or uses it again."""
        request = admin_pb2.DrainGpuRequest(name=messages.resource("gpus", name), undo=undo)
        async with async_errors(self._address):
            return messages.gpu_value(await self._stub.DrainGpu(request, timeout=self._timeout))
