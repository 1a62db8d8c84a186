"""`viseme.v1.AdminService`: for the operator of this server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import psutil
from google.protobuf.timestamp_pb2 import Timestamp
from viseme.v1 import admin_pb2, admin_pb2_grpc

from server.api.admission import Admission
from server.api.devices import DeviceDesk
from server.api.interceptors import Context
from server.api.pages import page
from server.errors import FieldInvalid, HostNotFound
from server.hosts.status import HostState, HostStatus
from server.store.paths import parse_resource_name
from server.version import __version__

_RESTART_GRACE_SECONDS: Final = 10.0
_MAX_GRACE_SECONDS: Final = 600.0
_LOG_LINES: Final = 100
_MAX_LOG_LINES: Final = 10_000

_STATES: Final = {
    HostState.STOPPED: admin_pb2.Host.STATE_STOPPED,
    HostState.STARTING: admin_pb2.Host.STATE_STARTING,
    HostState.READY: admin_pb2.Host.STATE_READY,
    HostState.DEGRADED: admin_pb2.Host.STATE_DEGRADED,
    HostState.DRAINING: admin_pb2.Host.STATE_DRAINING,
    HostState.BACKING_OFF: admin_pb2.Host.STATE_BACKING_OFF,
    HostState.FAILED: admin_pb2.Host.STATE_FAILED,
}


class HostOperations(Protocol):
    """What an operator sees of the model hosts and does with them; `server.hosts.pool.HostPool` is one."""

    def snapshot(self) -> Sequence[HostStatus]:
        """All hosts, running or not, in order of name."""

    async def restart(self, name: str, grace: float) -> HostStatus:
        """Stops a host after its running calls and starts it again."""

    def log(self, name: str, lines: int) -> str:
        """The end of a host's log."""


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """See admin.proto.

    Args:
        hosts: The model hosts.
        admission: Counts the requests under way.
        home: VISEME_HOME.
        llm_providers: Gives the language models, in the order they are asked.
        devices: Answers for the devices and their leases.
    """

    def __init__(
        self,
        *,
        hosts: HostOperations,
        admission: Admission,
        home: Path,
        llm_providers: Callable[[], Sequence[str]],
        devices: DeviceDesk,
    ) -> None:
        self._hosts = hosts
        self._admission = admission
        self._home = home
        self._llm_providers = llm_providers
        self._devices = devices
        self._started = datetime.now(UTC)

    async def GetStatus(  # noqa: N802 (named by the proto)
        self, request: admin_pb2.GetStatusRequest, context: Context
    ) -> admin_pb2.Status:
        """What this server is and how it is doing."""
        snapshot = await asyncio.to_thread(self._hosts.snapshot)
        return admin_pb2.Status(
            version=__version__,
            start_time=_timestamp(self._started),
            active_requests=self._admission.active,
            memory_bytes=psutil.Process().memory_info().rss + sum(host.memory_bytes for host in snapshot),
            home=str(self._home),
            llm_providers=self._llm_providers(),
        )

    async def ListHosts(  # noqa: N802 (named by the proto)
        self, request: admin_pb2.ListHostsRequest, context: Context
    ) -> admin_pb2.ListHostsResponse:
        """Lists the model hosts, running or not."""
        snapshot = await asyncio.to_thread(self._hosts.snapshot)
        given, token = page(snapshot, lambda host: host.name, request.page_size, request.page_token)
        return admin_pb2.ListHostsResponse(hosts=[_message(host) for host in given], next_page_token=token)

    async def RestartHost(  # noqa: N802 (named by the proto)
        self, request: admin_pb2.RestartHostRequest, context: Context
    ) -> admin_pb2.Host:
        """Stops a host after its running calls and starts it again."""
        name = self._known(request.name)
        grace = _RESTART_GRACE_SECONDS
        if request.HasField("grace"):
            grace = request.grace.ToTimedelta().total_seconds()
            if not 0 <= grace <= _MAX_GRACE_SECONDS:
                raise FieldInvalid(f"grace must be 0 to {_MAX_GRACE_SECONDS:g} s.", field="grace")
        return _message(await self._hosts.restart(name, grace))

    async def GetHostLog(  # noqa: N802 (named by the proto)
        self, request: admin_pb2.GetHostLogRequest, context: Context
    ) -> admin_pb2.GetHostLogResponse:
        """Returns the end of a host's log."""
        name = self._known(request.name)
        if not 0 <= request.lines <= _MAX_LOG_LINES:
            raise FieldInvalid(f"lines must be 0 to {_MAX_LOG_LINES}.", field="lines")
        text = await asyncio.to_thread(self._hosts.log, name, request.lines or _LOG_LINES)
        return admin_pb2.GetHostLogResponse(text=text)

    async def ListGpus(  # noqa: N802 (named by the proto)
        self, request: admin_pb2.ListGpusRequest, context: Context
    ) -> admin_pb2.ListGpusResponse:
        """Lists the devices that models run on."""
        return await self._devices.gpus()

    async def ListLeases(  # noqa: N802 (named by the proto)
        self, request: admin_pb2.ListLeasesRequest, context: Context
    ) -> admin_pb2.ListLeasesResponse:
        """Lists who holds memory of a device, and who waits for it and why."""
        return self._devices.leases()

    async def DrainGpu(  # noqa: N802 (named by the proto)
        self, request: admin_pb2.DrainGpuRequest, context: Context
    ) -> admin_pb2.Gpu:
        """Places nothing more on a device and asks its holders to leave, or uses it again."""
        return await self._devices.drain(request.name, undo=request.undo)

    def _known(self, name: str) -> str:
        """The name of a host of ours, from its resource name.

        Raises:
            HostNotFound: There is none of this name.
        """
        identifier = parse_resource_name(name, "hosts").id
        known = [host.name for host in self._hosts.snapshot()]
        if identifier not in known:
            raise HostNotFound(
                f"There is no host {name}.", fix=f"Use one of: {', '.join(f'hosts/{n}' for n in known)}"
            )
        return identifier


def _message(host: HostStatus) -> admin_pb2.Host:
    return admin_pb2.Host(
        name=f"hosts/{host.name}",
        state=_STATES[host.state],
        capabilities=host.capabilities,
        pid=host.pid or 0,
        memory_bytes=host.memory_bytes,
        restart_count=host.restart_count,
        start_time=None if host.start_time is None else _timestamp(host.start_time),
        problem=host.problem,
        fix=host.fix,
        python_version=host.python_version,
        models=host.models,
    )


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
