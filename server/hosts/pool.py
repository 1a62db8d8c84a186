"""The model hosts of a server, each started when it is first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import grpc
import grpc.aio
from viseme.host.v1 import host_pb2, host_pb2_grpc

from server.environment_choice import EnvironmentChoice
from server.errors import ConfigInvalid, HostLost, HostNotFound, HostNotStarted, VisemeError
from server.host_calls import calling
from server.hosts.backoff import RestartPolicy
from server.hosts.gpu_leases import HostLeases
from server.hosts.launching import HostLauncher, Resources
from server.hosts.local import LocalLauncher
from server.hosts.logs import tail
from server.hosts.manifest import HostManifest, load_manifests
from server.hosts.status import HostState, HostStatus
from server.hosts.supervisor import RunningHost, Supervisor
from server.progress import ProgressSink
from server.store.site import Site

if TYPE_CHECKING:
    # Exists for the type checker only: at run time the same stub serves both kinds of channel.
    from viseme.host.v1.host_pb2_grpc import HostServiceAsyncStub

_DESCRIBE_SECONDS: Final = 10.0
_RESTART_GRACE_SECONDS: Final = 10.0
# Who moves a host has ended his calls.
_PLACE_GRACE_SECONDS: Final = 2.0
# A host that is to make room finishes what it does first, also a long video.
_LEAVE_GRACE_SECONDS: Final = 600.0


class HostPool:
    """Starts, supervises and stops hosts. Used from one event loop.

    Args:
        home: VISEME_HOME.
        manifests: Directory whose folders hold a host.toml each.
        asset_path: Says where an asset is installed, or None; a host starts without those that are missing.
        threads: CPU threads each host may use.
        progress: Hears of environments being built.
        python: Runs all hosts instead of environments of their own.
        policy: When hosts that died are started again.
        packages: Further top-level packages that hosts may import, by directory.
        hello_seconds: How long a host may take to start.
        leases: Gives hosts that use a GPU of this machine the right to its memory; None: they take it.
        elsewhere: Starts hosts on other machines.
        wanted: The hosts that are started there, and what each needs.
        environments: How the operator wants environments to be made, by host.
        settings: What the operator set for hosts, by host.

    Raises:
        ManifestError: A host.toml is wrong.
        ConfigInvalid: The operator set something for a host that there is not.
    """

    def __init__(
        self,
        home: Path,
        manifests: Path,
        *,
        asset_path: Callable[[str], Path | None],
        threads: int = 2,
        progress: ProgressSink | None = None,
        python: Path | None = None,
        policy: RestartPolicy | None = None,
        packages: Mapping[str, Path] | None = None,
        hello_seconds: float = 60.0,
        leases: HostLeases | None = None,
        elsewhere: HostLauncher | None = None,
        wanted: Mapping[str, Resources] | None = None,
        environments: Mapping[str, EnvironmentChoice] | None = None,
        settings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.manifests: Final = load_manifests(manifests)
        for table, named in (("environments", environments), ("host_settings", settings)):
            if unknown := sorted(set(named or ()) - set(self.manifests)):
                raise ConfigInvalid(
                    f"[{table}.{unknown[0]}] is of no host.", fix=f"Use one of: {', '.join(self.manifests)}"
                )
        self._here = LocalLauncher(
            home,
            asset_path=asset_path,
            threads=threads,
            progress=progress,
            python=python,
            packages=packages,
            hello_seconds=hello_seconds,
            environments=environments,
            settings=settings,
        )
        self._leases = leases
        self._devices: dict[str, str] = {}
        self._elsewhere = elsewhere
        self._wanted = dict(wanted or {})
        self._listeners: list[Callable[[str, HostLost], None]] = []
        self._supervisors = {
            name: Supervisor(
                manifest,
                start=partial(self._start, manifest),
                describe=partial(self._ask, name),
                policy=policy or RestartPolicy(),
                lost=partial(self._tell_lost, name),
            )
            for name, manifest in self.manifests.items()
        }

    async def channel(self, name: str) -> grpc.aio.Channel:
        """A channel to a host that runs; starts it when it does not.

        Ask for it before every call, since it ends with the host's process; `server.host_calls.calling` turns
        the errors of calls into ours.

        Args:
            name: Name of the host.

        Raises:
            HostNotFound: There is no such host.
            HostNotStarted: It does not start; says what it said last.
            EnvironmentFailed: Its environment cannot be built.
            ServerStopping: The pool is being closed.
        """
        if self._leases is not None:
            self._leases.used(name)
        return (await self._running(name)).channel

    async def place(self, name: str, device: str | None) -> None:
        """Lets a host use one GPU only from now on; a process of it that may use another is stopped.

        Args:
            name: Name of the host.
            device: UUID of the GPU; None: it sees what the server sees.

        Raises:
            HostNotFound: There is no such host.
        """
        supervisor = self._supervisor(name)
        if self._devices.get(name) != device:
            await supervisor.stop(_PLACE_GRACE_SECONDS)
            self._here.place(name, device)
            self._devices.pop(name, None)
            if device is not None:
                self._devices[name] = device

    async def describe(self, name: str) -> host_pb2.DescribeResponse:
        """What a host is and has; starts it when it does not run.

        Args:
            name: Name of the host.

        Raises:
            HostLost: It died meanwhile.
            VisemeError: As `channel`.
        """
        running = await self._running(name)
        running.description = await self._ask(name, running.channel)
        return running.description

    def pid(self, name: str) -> int | None:
        """The process of a host; None when it does not run."""
        return self._supervisor(name).pid

    def snapshot(self) -> list[HostStatus]:
        """How all hosts are doing, in order of name."""
        return [supervisor.status() for supervisor in self._supervisors.values()]

    async def restart(self, name: str, grace: float = _RESTART_GRACE_SECONDS) -> HostStatus:
        """Stops a host after its running calls and starts it again, whatever it was doing.

        Calls that come meanwhile wait for the new process.

        Args:
            name: Name of the host.
            grace: Seconds that running calls may take.

        Raises:
            VisemeError: As `channel`.
        """
        supervisor = self._supervisor(name)
        await supervisor.restart(grace)
        return supervisor.status()

    def log(self, name: str, lines: int = 100) -> str:
        """The end of a host's log.

        Args:
            name: Name of the host.
            lines: How many lines at most.

        Raises:
            HostNotFound: There is no such host.
        """
        self._supervisor(name)
        return tail(self._launcher(name).log_path(name), lines)

    async def site(self, name: str) -> Site | None:
        """The files of a host that does not see those of this machine; starts it when it does not run.

        Args:
            name: Name of the host.

        Raises:
            VisemeError: As `channel`.
        """
        return (await self._running(name)).process.site

    def is_elsewhere(self, name: str) -> bool:
        """Whether a host is started on other machines."""
        return self._launcher(name) is not self._here

    def want(self, name: str, resources: Resources) -> None:
        """Says what a host needs of a node from its next start on; it must be one that runs on nodes.

        Whoever decides on which node or GPU a host goes says so here, before the start that it decides on.

        Args:
            name: Name of the host.
            resources: What it needs.
        """
        if not self.is_elsewhere(name):
            raise ValueError(f"the {name} host runs on this machine")
        self._wanted[name] = resources

    def on_lost(self, listener: Callable[[str, HostLost], None]) -> None:
        """Registers who hears of every host that ends unasked: its name and the error its callers get."""
        self._listeners.append(listener)

    async def close(self, grace: float = 2.0) -> None:
        """Stops all hosts; nothing of them is left when it returns.

        Args:
            grace: Seconds that running calls may take.
        """
        await asyncio.gather(*(supervisor.close(grace) for supervisor in self._supervisors.values()))
        if self._leases is not None:
            await self._leases.close()
        await self._here.close()
        if self._elsewhere is not None:
            await self._elsewhere.close()

    def _supervisor(self, name: str) -> Supervisor:
        try:
            return self._supervisors[name]
        except KeyError:
            known = ", ".join(self._supervisors)
            raise HostNotFound(f"There is no host '{name}'.", fix=f"Use one of: {known}", host=name) from None

    def _launcher(self, name: str) -> HostLauncher:
        return self._elsewhere if self._elsewhere is not None and name in self._wanted else self._here

    async def _running(self, name: str) -> RunningHost:
        supervisor = self._supervisor(name)
        running = await supervisor.running()
        if supervisor.state is HostState.DEGRADED and self._launcher(name).lacks(
            self.manifests[name], running.process.assets
        ):
            # What it lacked has been installed since it started.
            running = await supervisor.restart(_RESTART_GRACE_SECONDS)
        return running

    async def _start(self, manifest: HostManifest) -> RunningHost:
        leases = self._leases
        if leases is None or not leases.needed(manifest) or self.is_elsewhere(manifest.name):
            return await self._connect(manifest)
        # First, for it may take minutes in which others can use the GPU.
        await self._here.prepare(manifest)
        held = await leases.acquire(manifest)
        try:
            self._here.place(manifest.name, None if held.device.is_cpu else held.device.id)
            running = await self._connect(manifest)
        except BaseException:
            leases.give_back(held)
            raise
        stop = partial(self._supervisor(manifest.name).stop, _LEAVE_GRACE_SECONDS)
        leases.follow(manifest.name, held, running.process, stop)
        return running

    async def _connect(self, manifest: HostManifest) -> RunningHost:
        resources = self._wanted.get(manifest.name, Resources())
        process = await self._launcher(manifest.name).launch(manifest, resources)
        channel = process.connect()
        try:
            description = await self._ask(manifest.name, channel)
        except BaseException as error:
            await channel.close(None)
            await process.kill()
            if isinstance(error, VisemeError):
                raise HostNotStarted(
                    f"The {manifest.name} host does not say what it is: {error.message}", host=manifest.name
                ) from error
            raise
        return RunningHost(process, channel, description)

    async def _ask(self, name: str, channel: grpc.aio.Channel) -> host_pb2.DescribeResponse:
        stub = cast("HostServiceAsyncStub", host_pb2_grpc.HostServiceStub(channel))
        async with calling(name):
            return await stub.Describe(host_pb2.DescribeRequest(), timeout=_DESCRIBE_SECONDS)

    def _tell_lost(self, name: str, error: HostLost) -> None:
        for listener in self._listeners:
            listener(name, error)
