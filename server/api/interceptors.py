"""What happens around every call: its id, who makes it, required fields, errors, and who is told of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, cast

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message

from server.access.audit import EndedCall, Observer, resource_of
from server.access.caller import Caller
from server.access.gate import Gate
from server.api.required import check_required
from server.api.streams import next_in_time
from server.error_status import to_status
from server.errors import FieldRequired, InternalError, RequestMalformed, VisemeError
from server.request_id import HEADER, accepted, request

_UNTOUCHED: Final = "/grpc.health."
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("access")

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Any


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Wraps all calls but those of the health service.

    * Who calls is made out, and whether they may, before anything of the request is read.
    * A request that does not come, or is no message of the protocol, ends the call; so does one with an empty
      REQUIRED field. The servicer does not see them.
    * A VisemeError becomes its status; anything else becomes INTERNAL with a number under which the log has
      the traceback. No traceback leaves the server.
    * Each call is logged with its id, status and duration, and nothing of its contents; observers are told.
    * Servicers that stream responses are asynchronous generators. They are closed before the call ends,
      whatever ends it, so what they clean up is clean when the caller may know.

    Args:
        gate: Decides who may call.
        observers: Are told of every call when it has ended.
        request_seconds: Longest time until the request of a call that has only one is there.
    """

    def __init__(self, gate: Gate, observers: Sequence[Observer], request_seconds: float) -> None:
        self._gate = gate
        self._observers = tuple(observers)
        self._request_seconds = request_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wraps the handler of one call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(_UNTOUCHED):
            return handler
        return self._wrap(handler, method)

    def _wrap(self, handler: Handler, method: str) -> Handler:
        """The handler with everything around it.

        It takes a stream of raw bytes even where there is one request: so the time until that comes can be
        limited, and what cannot be read is told in our own words.
        """

        async def guarded(received: AsyncIterator[bytes], context: Context) -> Any:
            metadata = context.invocation_metadata()
            call = _Call(accepted(metadata))
            with request(call.request_id):
                context.set_trailing_metadata(((HEADER, call.request_id),))
                began = time.monotonic()
                failure: VisemeError | None = None
                response: Any = None
                try:
                    call.caller = self._gate.caller(method, metadata)
                    with self._gate.admitted(call.caller):
                        response = await self._serve(handler, received, context, call)
                    call.code = "OK"
                except VisemeError as error:
                    failure = error
                except Exception:
                    failure = _unexpected(method)
                finally:
                    if failure is not None:
                        call.code, call.reason = failure.status.name, failure.reason
                    # Before the caller knows.
                    self._tell(call.ended(method, context.peer(), time.monotonic() - began))
                if failure is not None:
                    status = to_status(failure, call.request_id)
                    await cast(Any, context).abort_with_status(status)  # missing in the type stubs
                return response

        kind: Any = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return cast(Handler, kind(guarded, None, handler.response_serializer))

    async def _serve(
        self, handler: Handler, received: AsyncIterator[bytes], context: Context, call: _Call
    ) -> Any:
        requests = _messages(received, cast(Any, handler.request_deserializer), call)
        given: Any = requests
        if not handler.request_streaming:
            given = await next_in_time(requests, self._request_seconds)
            if given is None:
                raise FieldRequired("The call has no request.")
        serving: Any = (
            (handler.stream_stream if handler.request_streaming else handler.unary_stream)
            if handler.response_streaming
            else (handler.stream_unary if handler.request_streaming else handler.unary_unary)
        )
        if not handler.response_streaming:
            return await serving(given, context)
        async with aclosing(serving(given, context)) as responses:
            async for response in responses:
                await context.write(response)
        return None

    def _tell(self, ended: EndedCall) -> None:
        reason = {"reason": ended.reason} if ended.reason else {}
        seconds = round(ended.seconds, 3)
        _log.info("call", method=ended.method, seconds=seconds, code=ended.code, **reason)
        for observer in self._observers:
            observer(ended)


@dataclass(slots=True)
class _Call:
    """What is known of a call so far; it is CANCELLED until it ends in another way."""

    request_id: str
    caller: Caller | None = None
    resource: str = ""
    code: str = "CANCELLED"
    reason: str = ""

    def ended(self, method: str, peer: str | None, seconds: float) -> EndedCall:
        return EndedCall(
            method, self.request_id, self.caller, self.resource, peer or "", self.code, self.reason, seconds
        )


async def _messages(
    received: AsyncIterator[bytes], read: Callable[[bytes], Message], call: _Call
) -> AsyncIterator[Message]:
    """The requests of a call, each read and checked.

    Raises:
        RequestMalformed: One is not a message of the protocol.
        FieldRequired: A required field of one is empty.
    """
    async for data in received:
        try:
            message = read(data)
        except DecodeError:
            raise RequestMalformed from None
        call.resource = call.resource or resource_of(message)
        check_required(message)
        yield message


def _unexpected(method: str) -> InternalError:
    """The error for an exception that nobody expected; the log has its traceback under the same number."""
    number = secrets.token_hex(4)
    _log.exception("unexpected_error", method=method, number=number)
    return InternalError(
        f"Something went wrong inside viseme; the server's log says more under {number}.", number=number
    )
