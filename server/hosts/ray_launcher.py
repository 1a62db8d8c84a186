"""Hosts on nodes of a Ray cluster: placed by Ray, started by our agents, called over TCP with mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import grpc.aio

from server.errors import ClusterUnreachable, ConfigInvalid, HostLost, VisemeError
from server.hosts.identity import Identity, new_identity, secure_channel
from server.hosts.launching import CHANNEL_OPTIONS, Resources, Whereabouts
from server.hosts.logs import rotate
from server.hosts.manifest import HostManifest
from server.hosts.ray_agent import AgentSettings, unpacked
from server.store.trees import TreeStore

_DESCRIBE_SECONDS: Final = 2.0
_CALL_SECONDS: Final = 10.0
_LINE_BYTES: Final = 16 * 1024 * 1024
_END_SECONDS: Final = 5.0
# Ray gives up after half a minute where somebody listens who is not Ray.
_JOIN_SECONDS: Final = 60.0


class RayLauncher:
    """Starts hosts in a cluster. A `server.hosts.launching.HostLauncher`.

    Args:
        address: `HOST:PORT` of the cluster's head.
        home: VISEME_HOME of this machine; the logs of the hosts are copied into it.
        agents: What the agents on the nodes need to know.
        trees: The blob store that this machine and the nodes reach.
        place_seconds: How long a host may wait for room on a node.

    Raises:
        ConfigInvalid: Ray is not installed.
    """

    def __init__(
        self, address: str, home: Path, agents: AgentSettings, trees: TreeStore, *, place_seconds: float
    ) -> None:
        if find_spec("ray") is None:
            raise ConfigInvalid(
                "Hosts on other machines need Ray, which is not installed.", fix="pip install -e '.[ray]'"
            )
        self._address = address
        self._logs = home.absolute() / "logs" / "hosts"
        self._agents = agents
        self._trees = trees
        self._place_seconds = place_seconds
        self._caller = new_identity()
        self._bridge: _Bridge | None = None
        self._joining = asyncio.Lock()
        self._placed: set[str] = set()

    async def launch(self, manifest: HostManifest, resources: Resources) -> RayHost:
        """Has a host started on a node that has what it needs, and waits for its hello.

        Args:
            manifest: The host.
            resources: What it needs.

        Raises:
            ClusterUnreachable: The cluster is away.
            NoNodeFits: No node has what it needs, however long one waits.
            HostNotStarted: No node has room in time, or the host did not start there.
            EnvironmentFailed: Its environment cannot be built there.
        """
        bridge = await self._joined()
        said = await bridge.call(
            "launch",
            host=manifest.name,
            resources=asdict(resources),
            settings=asdict(self._agents),
            caller=self._caller.certificate.decode(),
            patience=self._place_seconds,
            # A host that has had a place waits for another; what never had one is a mistake to tell at once.
            wait_for_node=manifest.name in self._placed,
        )
        self._placed.add(manifest.name)
        return RayHost(bridge, self._caller, said, self.log_path(manifest.name), self._trees)

    def lacks(self, manifest: HostManifest, given: frozenset[str]) -> bool:
        """False: agents fetch what a host needs before they start it."""
        return False

    def log_path(self, name: str) -> Path:
        """Where the copy of a host's log is."""
        return self._logs / f"{name}.log"

    async def close(self) -> None:
        """Leaves the cluster, which ends all that is still there of ours."""
        if self._bridge is not None:
            await self._bridge.close()

    async def _joined(self) -> _Bridge:
        async with self._joining:
            if self._bridge is None or self._bridge.ended:
                self._bridge = await _Bridge.start(self._address, self._logs / "ray.log")
            return self._bridge


class RayHost:
    """A host on a node; a `server.hosts.launching.LaunchedHost`. Made by `RayLauncher`.

    Attributes:
        python: Version of its Python.
        start_time: When it said hello, in UTC.
        assets: Names of the assets it was given.
        log_path: The copy of its log on this machine.
        log_offset: Where in it its output starts.
        site: Its files.
    """

    def __init__(
        self, bridge: _Bridge, caller: Identity, said: Mapping[str, Any], log_path: Path, trees: TreeStore
    ) -> None:
        self.python: str = said["python"]
        self.start_time = datetime.now(UTC)
        self.assets: frozenset[str] = frozenset(said["assets"])
        self.log_path = log_path
        log_path.parent.mkdir(parents=True, exist_ok=True)
        rotate(log_path)
        self.log_offset = log_path.stat().st_size if log_path.exists() else 0
        self._bridge = bridge
        self._caller = caller
        self._handle: int = said["handle"]
        self._address: str = said["address"]
        self._certificate: bytes = said["certificate"].encode()
        self._read_offset: int = said["log_offset"]
        self._where = _whereabouts(said)
        self.site = RaySite(bridge, self._handle, trees)
        self._following = asyncio.create_task(self._follow(), name="follow-host")

    def connect(self) -> grpc.aio.Channel:
        """A new channel to it: each side knows the other by the certificate of this launch."""
        return secure_channel(self._address, self._certificate, self._caller, CHANNEL_OPTIONS)

    def describe(self) -> Whereabouts:
        """Where it is, as its agent said last."""
        return self._where

    async def watch(self) -> str:
        """Waits for its end, that of its node or that of the connection to the cluster."""
        try:
            how: str = (await self._bridge.call("watch", handle=self._handle))["how"]
        except VisemeError:
            how = "was lost with its node" if not self._bridge.ended else "was lost with the cluster"
        self._following.cancel()
        # What it said last, while its agent is still there to tell.
        with contextlib.suppress(VisemeError, TimeoutError, OSError):
            async with asyncio.timeout(_DESCRIBE_SECONDS):
                await self._look()
        return how

    async def stop(self, grace: float) -> None:
        """Ends it and its agent; on a node that is lost there is nothing to end."""
        self._following.cancel()
        with contextlib.suppress(VisemeError, TimeoutError):
            async with asyncio.timeout(grace + _CALL_SECONDS):
                await self._bridge.call("stop", handle=self._handle, grace=grace)

    async def kill(self) -> None:
        """Ends it and its agent at once."""
        await self.stop(0)

    async def _follow(self) -> None:
        while not self._bridge.ended:
            # Its node may be gone; `watch` tells.
            with contextlib.suppress(VisemeError, OSError):
                await self._look()
            await asyncio.sleep(_DESCRIBE_SECONDS)

    async def _look(self) -> None:
        said = await self._bridge.call("describe", handle=self._handle, log_offset=self._read_offset)
        self._where = _whereabouts(said)
        self._read_offset = said["log_offset"]
        if said["log"]:
            descriptor = os.open(self.log_path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as log:
                log.write(said["log"])


class RaySite:
    """The files of a host on a node; a `server.store.site.Site`.

    Args:
        bridge: To the cluster.
        handle: Of the agent.
        trees: The blob store.
    """

    def __init__(self, bridge: _Bridge, handle: int, trees: TreeStore) -> None:
        self._bridge = bridge
        self._handle = handle
        self._trees = trees
        self._brought: dict[str, tuple[object, str]] = {}

    async def bring(
        self, directory: Path, key: str, names: Sequence[str] | None = None, work: str = ""
    ) -> str:
        """Takes a directory of this machine there; nothing is sent that is there already."""
        state = await asyncio.to_thread(_state, directory)
        if not work and (known := self._brought.get(key)) is not None and known[0] == state:
            return known[1]
        await asyncio.to_thread(self._trees.publish, key, directory, names)
        there = str(await self._call("borrow", key=key, work=work))
        if not work:
            self._brought[key] = (state, there)
        return there

    async def open_work(self, key: str, kept: Sequence[str], turn: str = "") -> str:
        """Makes a directory there to work in."""
        return str(await self._call("open_work", key=key, kept=list(kept), turn=turn))

    async def publish(self, directory: str, key: str) -> None:
        """Stores a directory there as a tree."""
        await self._call("publish", directory=directory, key=key)

    async def close_work(self, directory: str) -> None:
        """Keeps the files of a work directory a last time and removes it."""
        await self._call("close_work", directory=directory)

    async def _call(self, method: str, **arguments: Any) -> Any:
        said = await self._bridge.call("files", handle=self._handle, method=method, arguments=arguments)
        return said["result"]


@dataclass(slots=True)
class _Bridge:
    """The child process that talks to Ray (`server.hosts.ray_bridge`), and the answers waited for."""

    process: asyncio.subprocess.Process
    waiting: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    ended: bool = False
    _count: int = 0
    _reader: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, address: str, log_path: Path) -> _Bridge:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        rotate(log_path)
        with log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "server.hosts.ray_bridge", address,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, limit=_LINE_BYTES,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                     "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
                start_new_session=True,
            )  # fmt: skip
        bridge = cls(process)
        try:
            assert process.stdout is not None  # noqa: S101 (asked for above)
            line = b""
            with contextlib.suppress(TimeoutError):
                line = await asyncio.wait_for(process.stdout.readline(), _JOIN_SECONDS)
            if not line:
                raise ClusterUnreachable(
                    f"The Ray cluster at {address} does not answer as one.", fix=f"Read {log_path}"
                )
            _raise(json.loads(line))
        except BaseException:
            await bridge.close()
            raise
        bridge._reader = asyncio.create_task(bridge._read(), name="ray-bridge")
        return bridge

    async def call(self, call: str, **arguments: Any) -> dict[str, Any]:
        """Asks; gives the request up when the waiting task is cancelled."""
        if self.ended or self.process.stdin is None:
            raise HostLost("The connection to the Ray cluster was lost.")
        self._count += 1
        number = self._count
        answer = self.waiting[number] = asyncio.get_running_loop().create_future()
        self._send({"id": number, "call": call, **arguments})
        try:
            said: dict[str, Any] = await answer
        except asyncio.CancelledError:
            if not self.ended:
                self._send({"cancel": number})
            raise
        finally:
            self.waiting.pop(number, None)
        _raise(said)
        return said

    async def close(self) -> None:
        """Ends the process; it takes with it what it has placed."""
        self.ended = True
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), _END_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        if self._reader is not None:
            await asyncio.wait({self._reader})

    def _send(self, message: Mapping[str, Any]) -> None:
        if self.process.stdin is not None:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 (asked for above)
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            if (answer := self.waiting.get(said["id"])) is not None and not answer.done():
                answer.set_result(said)
            elif "handle" in said:
                # Placed in the moment in which it was given up.
                self._send({"id": 0, "call": "stop", "handle": said["handle"], "grace": 0})
        self.ended = True
        for answer in self.waiting.values():
            if not answer.done():
                answer.set_exception(HostLost("The connection to the Ray cluster was lost."))


def _state(directory: Path) -> object:
    """Changes when a file of a directory does."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return [(str(path), (status := path.stat()).st_ino, status.st_mtime_ns, status.st_size) for path in files]


def _whereabouts(said: Mapping[str, Any]) -> Whereabouts:
    return Whereabouts(said["node"], said["pid"], said["memory_bytes"], said["devices"])


def _raise(said: Mapping[str, Any]) -> None:
    """Raises the error in an answer as one of its class.

    Raises:
        VisemeError: There is one.
    """
    if (error := unpacked(said)) is not None:
        raise error
