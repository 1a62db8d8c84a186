"""What happens around every call: required fields, errors, the access log."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, cast

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message

from server.api.required import check_required
from server.error_status import to_status
from server.errors import InternalError, VisemeError

_OURS: Final = ("/viseme.", "/google.longrunning.")
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("access")

Context = grpc.aio.ServicerContext[Any, Any]


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Wraps the calls of viseme's own services.

    * Requests with an empty REQUIRED field are refused before the servicer sees them.
    * A VisemeError becomes its status; anything else becomes INTERNAL with a number under which the log has
      the traceback. No traceback leaves the server.
    * Each call is logged with its status and duration, and nothing of its contents.
    * Servicers that stream responses are asynchronous generators. They are closed before the call ends,
      whatever ends it, so what they clean up is clean when the caller may know.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wraps the handler of one call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(_OURS):
            return handler
        return _wrap(handler, method)


def _wrap(handler: grpc.RpcMethodHandler[Any, Any], method: str) -> grpc.RpcMethodHandler[Any, Any]:
    serving: Any = (
        (handler.stream_stream if handler.request_streaming else handler.unary_stream)
        if handler.response_streaming
        else (handler.stream_unary if handler.request_streaming else handler.unary_unary)
    )

    async def serve(request: Any, context: Context) -> Any:
        if handler.request_streaming:
            request = _checked(request)
        else:
            check_required(request)
        if not handler.response_streaming:
            return await serving(request, context)
        async with aclosing(serving(request, context)) as responses:
            async for response in responses:
                await context.write(response)
        return None

    async def guarded(request: Any, context: Context) -> Any:
        began = time.monotonic()
        outcome = {"code": "CANCELLED"}
        try:
            try:
                response = await serve(request, context)
            except VisemeError as error:
                failure = error
            except Exception:
                failure = _unexpected(method)
            else:
                outcome = {"code": "OK"}
                return response
            outcome = {"code": failure.status.name, "reason": failure.reason}
            await cast(Any, context).abort_with_status(to_status(failure))  # missing in the type stubs
        finally:
            _log.info("call", method=method, seconds=round(time.monotonic() - began, 3), **outcome)

    kind = _HANDLERS[handler.request_streaming, handler.response_streaming]
    return kind(guarded, handler.request_deserializer, handler.response_serializer)


_HANDLERS: Final[dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


async def _checked(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        check_required(request)
        yield request


def _unexpected(method: str) -> InternalError:
    """The error for an exception that nobody expected; the log has its traceback under the same number."""
    number = secrets.token_hex(4)
    _log.exception("unexpected_error", method=method, number=number)
    return InternalError(
        f"Something went wrong inside viseme; the server's log says more under {number}.", number=number
    )
