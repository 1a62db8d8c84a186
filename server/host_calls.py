"""Calls to model hosts: what the server needs of the pool, and how a host's failure becomes a VisemeError."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, cast

import grpc
import grpc.aio
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status
from viseme._ending import Ending
from viseme.host.v1 import host_pb2, host_pb2_grpc

from server.errors import DOMAIN, HostLost, InternalError, StageTimeout, VisemeError, error_for_reason
from server.store.site import Site

if TYPE_CHECKING:
    # These exist for the type checker only: at run time the same stub serves both kinds of channel.
    from viseme.host.v1.host_pb2_grpc import (
        RenderServiceAsyncStub,
        SynthesizeServiceAsyncStub,
        TrainServiceAsyncStub,
        TranscribeServiceAsyncStub,
    )


class ModelHosts(Protocol):
    """The model hosts, each started when it is first needed."""

    async def channel(self, name: str) -> grpc.aio.Channel:
        """A channel to a host that runs; starts it when it does not."""

    async def describe(self, name: str) -> host_pb2.DescribeResponse:
        """What a host is and has; starts it when it does not run."""

    async def place(self, name: str, device: str | None) -> None:
        """Lets a host use one GPU only from now on; a process of it that may use another is stopped."""

    def pid(self, name: str) -> int | None:
        """The process of a host; None when it does not run."""

    def is_elsewhere(self, name: str) -> bool:
        """Whether a host is started on other machines."""

    async def site(self, name: str) -> Site | None:
        """The files of a host that does not see those of this machine; starts it when it does not run."""


def transcriber(channel: grpc.aio.Channel) -> TranscribeServiceAsyncStub:
    """The calls of a transcribe host."""
    return cast("TranscribeServiceAsyncStub", host_pb2_grpc.TranscribeServiceStub(channel))


def synthesizer(channel: grpc.aio.Channel) -> SynthesizeServiceAsyncStub:
    """The calls of a synthesize host."""
    return cast("SynthesizeServiceAsyncStub", host_pb2_grpc.SynthesizeServiceStub(channel))


def renderer(channel: grpc.aio.Channel) -> RenderServiceAsyncStub:
    """The calls of a render host."""
    return cast("RenderServiceAsyncStub", host_pb2_grpc.RenderServiceStub(channel))


def trainer(channel: grpc.aio.Channel) -> TrainServiceAsyncStub:
    """The calls of a train host."""
    return cast("TrainServiceAsyncStub", host_pb2_grpc.TrainServiceStub(channel))


@asynccontextmanager
async def calling(host: str, ending: Ending | None = None) -> AsyncIterator[None]:
    """Turns the errors of calls to a host into ours.

    Args:
        host: Name of the host, for the error's metadata.
        ending: Of the call, when requests are written to it.

    Raises:
        HostLost: The host died, or the connection to it.
        VisemeError: What the host reported, as the class of its reason.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error if ending is None else await ending.error(error), host) from error
    except grpc.aio.UsageError as error:
        raise HostLost(host=host) from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody has cancelled us: the channel was closed under the call, because its host is gone.
        raise HostLost(host=host) from None


def from_rpc_error(error: grpc.aio.AioRpcError, host: str) -> VisemeError:
    """The VisemeError for a failed call to a host."""
    reported = _reported(error)
    if reported is not None:
        return reported
    match error.code():
        # CANCELLED from the other side: it was shut down while the call ran.
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return HostLost(host=host)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return StageTimeout(f"The {host} host took too long.", host=host)
        case code:
            return InternalError(f"The {host} host failed ({code.name}); its log says more.", host=host)


def _reported(error: grpc.aio.AioRpcError) -> VisemeError | None:
    """The error with the reason and the sentence that the host gave, when it gave one."""
    # The declared type wants a synchronous call; at run time the aio error has all that is used of it.
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except ValueError:
        return None
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            kind = error_for_reason(info.reason)
            if kind is None:
                return None
            metadata = {name: value for name, value in info.metadata.items() if name != "fix"}
            return kind(error.details() or None, fix=info.metadata.get("fix"), **metadata)
    return None
