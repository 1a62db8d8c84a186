"""What the supervisor needs of whoever starts hosts: launch, describe, stop, watch.

`server.hosts.local` starts them on this machine, `server.hosts.ray_launcher` on the nodes of a Ray cluster.
Another system that places processes fits behind the same four calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

import grpc.aio

from server.hosts.manifest import HostManifest
from server.store.site import Site

CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    # Each process has a channel of its own, even were two to use one path.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a host needs of the machine that it is put on.

    Attributes:
        gpus: GPUs, or a share of one.
        cpus: Cores.
        memory_mib: Memory in MiB.
        node: Id of the node that it must run on; empty for any that has room.
        labels: Further resources that the operator gave to nodes, by name.
    """

    gpus: float = 0
    cpus: float = 0
    memory_mib: int = 0
    node: str = ""
    labels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a host is, and what it uses there.

    Attributes:
        node: Id of its node; empty for this machine.
        pid: Its process on that node.
        memory_bytes: Resident memory of it and its children.
        devices: GPUs that it was given, as CUDA_VISIBLE_DEVICES names them.
    """

    node: str
    pid: int
    memory_bytes: int
    devices: str = ""


class LaunchedHost(Protocol):
    """A host that has said hello."""

    @property
    def python(self) -> str:
        """Version of its Python."""

    @property
    def start_time(self) -> datetime:
        """When it said hello, in UTC."""

    @property
    def assets(self) -> frozenset[str]:
        """Names of the assets it was given."""

    @property
    def log_path(self) -> Path:
        """Where its output can be read on this machine."""

    @property
    def log_offset(self) -> int:
        """Where in that file its output starts, in bytes."""

    @property
    def site(self) -> Site | None:
        """Its files, when it does not see those of this machine."""

    def connect(self) -> grpc.aio.Channel:
        """A new channel to it, which only we can open."""

    def describe(self) -> Whereabouts:
        """Where it is, as far as is known now."""

    async def watch(self) -> str:
        """Waits for its end; says how it ended, such as "was killed by SIGKILL"."""

    async def stop(self, grace: float) -> None:
        """Ends it with all its children; returns when nothing of it is left that can be reached.

        Args:
            grace: Seconds that running calls may take to end; they are cancelled after that.
        """

    async def kill(self) -> None:
        """Ends it at once with all its children."""


class HostLauncher(Protocol):
    """Starts hosts."""

    async def launch(self, manifest: HostManifest, resources: Resources) -> LaunchedHost:
        """Starts a host and waits for its hello.

        Args:
            manifest: The host.
            resources: What it needs.

        Raises:
            HostNotStarted: It ended, said nothing in time or something wrong, or there is no room for it.
            EnvironmentFailed: Its environment cannot be built.
        """

    def lacks(self, manifest: HostManifest, given: frozenset[str]) -> bool:
        """Whether a host that was started with some assets would get more now."""

    def log_path(self, name: str) -> Path:
        """Where the output of a host can be read on this machine."""

    async def close(self) -> None:
        """Gives back what it holds; all hosts have ended before."""
