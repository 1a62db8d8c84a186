"""Calls to model hosts: what the server needs of the pool, and how a host's failure becomes a VisemeError."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status
from viseme.host.v1 import host_pb2, host_pb2_grpc

from server.errors import DOMAIN, HostLost, InternalError, StageTimeout, VisemeError, error_for_reason

if TYPE_CHECKING:
    # These exist for the type checker only: at run time the same stub serves both kinds of channel.
    from viseme.host.v1.host_pb2_grpc import (
        RenderServiceAsyncStub,
        SynthesizeServiceAsyncStub,
        TranscribeServiceAsyncStub,
    )


_WRITE_FAILED: Final = "Internal error from Core"
_SETTLE_SECONDS: Final = 1.0
_Value = TypeVar("_Value")


class Call(Protocol):
    """What is asked of a call of grpc.aio to learn how it ended."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Has the callback called as soon as there is a status, and again when another takes its place."""

    async def code(self) -> grpc.StatusCode:
        """Its status."""

    async def details(self) -> str:
        """What the host said."""

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Metadata before the responses."""

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Metadata after them."""


class Ending:
    """Learns how a call that requests are written to really ended.

    When a call ends while a request is being written, grpc.aio says INTERNAL: instead of the status that the
    host sent, which it then forgets, or a moment before that. Each status is therefore noted when it is set;
    a task that waits for the first would already find the second.

    Args:
        call: The call.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._error: grpc.aio.AioRpcError | None = None
        self._known = asyncio.Event()
        call.add_done_callback(self._note)

    async def error(self, seen: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """The error the call ended with, where grpc.aio has shown `seen`."""
        if not _is_write_failure(seen):
            return seen
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                await self._known.wait()
        return self._error or seen

    def _note(self, _call: object) -> None:
        call = self._call
        error = grpc.aio.AioRpcError(
            _at_once(call.code()),
            _at_once(call.initial_metadata()),
            _at_once(call.trailing_metadata()),
            _at_once(call.details()),
            None,
        )
        if not _is_write_failure(error):
            self._error = error
            self._known.set()


def _at_once(result: Coroutine[Any, Any, _Value]) -> _Value:
    """The result of a coroutine that has nothing to wait for."""
    try:
        result.send(None)
    except StopIteration as end:
        return cast("_Value", end.value)
    result.close()
    raise RuntimeError("a call that has ended lets its status be waited for")


def _is_write_failure(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _WRITE_FAILED


class ModelHosts(Protocol):
    """The model hosts, each started when it is first needed."""

    async def channel(self, name: str) -> grpc.aio.Channel:
        """A channel to a host that runs; starts it when it does not."""

    async def describe(self, name: str) -> host_pb2.DescribeResponse:
        """What a host is and has; starts it when it does not run."""


def transcriber(channel: grpc.aio.Channel) -> TranscribeServiceAsyncStub:
    """The calls of a transcribe host."""
    return cast("TranscribeServiceAsyncStub", host_pb2_grpc.TranscribeServiceStub(channel))


def synthesizer(channel: grpc.aio.Channel) -> SynthesizeServiceAsyncStub:
    """The calls of a synthesize host."""
    return cast("SynthesizeServiceAsyncStub", host_pb2_grpc.SynthesizeServiceStub(channel))


def renderer(channel: grpc.aio.Channel) -> RenderServiceAsyncStub:
    """The calls of a render host."""
    return cast("RenderServiceAsyncStub", host_pb2_grpc.RenderServiceStub(channel))


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
