"""Stands around every call: turns exceptions into statuses, counts running calls, refuses new ones."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Iterator

import grpc

from model_hosts.sdk import request_id
from model_hosts.sdk.cancellation import Cancelled
from model_hosts.sdk.errors import HostError, RichStatus

if TYPE_CHECKING:
    # Generic only in the stubs.
    _Interceptor = grpc.ServerInterceptor[Any, Any]
    _Handler = grpc.RpcMethodHandler[Any, Any]
else:
    _Interceptor = grpc.ServerInterceptor

_log = logging.getLogger(__name__)
_ASKED_OFTEN = "/viseme.host.v1.HostService/"

_STOPPING = HostError(
    grpc.StatusCode.UNAVAILABLE, "HOST_LOST", "The model host is stopping; try again in a moment."
)
_BUSY = HostError(
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    "SERVER_BUSY",
    "The model host has as many calls as it can take; try again in a moment.",
)


class CallGuard(_Interceptor):
    """Interceptor of a host's server. Health checks pass it untouched, so that they are always answered.

    Args:
        limit: Calls that may run at a time; must be below the number of threads of the server.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._active = 0
        self._draining = False

    @property
    def active(self) -> int:
        """Number of calls that run."""
        with self._lock:
            return self._active

    def drain(self) -> None:
        """From now on refuses new calls."""
        with self._lock:
            self._draining = True

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Wraps the handler of a call."""
        handler = continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or method.startswith("/grpc.health."):
            return handler
        if handler.response_streaming:
            inner: Callable[..., Any] = getattr(
                handler, "stream_stream" if handler.request_streaming else "unary_stream"
            )

            def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
                with request_id.naming(context), self._call(method, context):
                    yield from inner(request, context)

            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return make(stream, handler.request_deserializer, handler.response_serializer)
        inner = getattr(handler, "stream_unary" if handler.request_streaming else "unary_unary")

        def single(request: Any, context: grpc.ServicerContext) -> Any:
            with request_id.naming(context), self._call(method, context):
                return inner(request, context)

        make = (
            grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return make(single, handler.request_deserializer, handler.response_serializer)

    @contextlib.contextmanager
    def _call(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        refusal = self._enter()
        if refusal is not None:
            context.abort_with_status(RichStatus(refusal))
        began = time.monotonic()
        try:
            yield
            if not method.startswith(_ASKED_OFTEN):
                _log.info("%s: done in %.3f s", method, time.monotonic() - began)
        except HostError as error:
            _log.info("%s: %s %s: %s", method, error.code.name, error.reason, error.message)
            context.abort_with_status(RichStatus(error))
        except Cancelled:
            _log.debug("%s: cancelled", method)
            if self._draining and context.is_active():
                # The host gave up the call, not its caller.
                context.abort_with_status(RichStatus(_STOPPING))
            context.abort(grpc.StatusCode.CANCELLED, "The call was cancelled.")
        except Exception:
            if not context.is_active():
                # Reading the requests of a caller who has gone raises; that is not an error of the host.
                _log.debug("%s: the caller has gone", method, exc_info=True)
                raise Cancelled from None
            if context.code() is not None:  # type: ignore[attr-defined]
                # The servicer has aborted the call itself.
                raise
            _log.exception("%s failed", method)
            message = "The model host failed; its log says more."
            context.abort_with_status(RichStatus(HostError(grpc.StatusCode.INTERNAL, "INTERNAL", message)))
        finally:
            with self._lock:
                self._active -= 1

    def _enter(self) -> HostError | None:
        with self._lock:
            if self._draining:
                return HostError(
                    grpc.StatusCode.UNAVAILABLE,
                    "HOST_LOST",
                    "The model host is stopping; try again in a moment.",
                )
            if self._active >= self._limit:
                return HostError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "SERVER_BUSY",
                    "The model host has as many calls as it can take; try again in a moment.",
                )
            self._active += 1
            return None
