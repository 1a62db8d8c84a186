"""What a model host is made of: subclass `Host`."""

from __future__ import annotations

import abc
import os
from pathlib import Path
from typing import ClassVar, Sequence

import grpc
from viseme.host.v1 import host_pb2, host_pb2_grpc

from model_hosts.sdk.arguments import Arguments, install_command


class Host(abc.ABC):
    """A model host; `serve` makes one and stops it.

    The constructor should return within seconds: load what is slow in it only when calls could not start
    without, since the server waits for the hello.

    Attributes:
        name: Name of the host, as in its host.toml.
        capabilities: As in its host.toml.
        required_assets: Assets without which calls fail; then Describe says what is missing.
        version: Version of the host.
    """

    name: ClassVar[str]
    capabilities: ClassVar[tuple[str, ...]]
    required_assets: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[str] = "0.1.0"

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments

    @abc.abstractmethod
    def services(self) -> Sequence[object]:
        """The servicers of its capabilities: instances of subclasses of generated servicers.

        Their methods block, run in threads, and raise `HostError`.
        """

    def describe(self) -> host_pb2.DescribeResponse:
        """What it is and lacks; hosts add their models. Name, capabilities and memory are filled in later.

        Ready unless a required asset is missing.
        """
        missing = [name for name in self.required_assets if name not in self.arguments.assets]
        if not missing:
            return host_pb2.DescribeResponse(ready=True, device="cpu")
        return host_pb2.DescribeResponse(
            ready=False,
            problem=f"The model '{missing[0]}' is not installed.",
            fix=install_command(" ".join(missing)),
            device="cpu",
        )

    # Most hosts have nothing to close.
    def close(self) -> None:  # noqa: B027
        """Ends child processes and removes temporary files; called once, after the last call."""


class DescribeServicer(host_pb2_grpc.HostServiceServicer):
    """Answers HostService for any host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def Describe(  # noqa: N802 (the protocol's name)
        self, request: host_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> host_pb2.DescribeResponse:
        """Completes what the host says of itself."""
        description = self._host.describe()
        description.name = self._host.name
        description.version = self._host.version
        del description.capabilities[:]
        description.capabilities.extend(self._host.capabilities)
        if not description.memory_bytes:
            description.memory_bytes = resident_bytes()
        return description


def resident_bytes() -> int:
    """Resident memory of this process in bytes; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
