"""Calls to model hosts: what the server needs of the pool, and how a host's failure becomes a VisemeError."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import grpc
import grpc.aio
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status
from viseme.host.v1 import host_pb2

from server.errors import DOMAIN, HostLost, InternalError, StageTimeout, VisemeError, error_for_reason


class ModelHosts(Protocol):
    """The model hosts, each started when it is first needed."""

    async def channel(self, name: str) -> grpc.aio.Channel:
        """A channel to a host that runs; starts it when it does not."""

    async def describe(self, name: str) -> host_pb2.DescribeResponse:
        """What a host is and has; starts it when it does not run."""


@asynccontextmanager
async def calling(host: str) -> AsyncIterator[None]:
    """Turns the errors of calls to a host into ours.

    Args:
        host: Name of the host, for the error's metadata.

    Raises:
        HostLost: The host died, or the connection to it.
        VisemeError: What the host reported, as the class of its reason.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, host) from error
    except grpc.aio.UsageError as error:
        raise HostLost(host=host) from error


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
