"""What can go wrong, as callers see it."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from viseme._ending import is_write_failure

_DETAILS = "grpc-status-details-bin"
_DOMAIN = "viseme"
_STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class VisemeError(Exception):
    """A request failed.

    Attributes:
        reason: What it was, in UPPER_SNAKE: `AUDIO_SILENT`, `AVATAR_NOT_FOUND`, `HOST_LOST`, … A server that
            cannot be reached is `SERVER_UNREACHABLE`.
        message: One sentence for people.
        fix: What puts it right, or None.
        retryable: Whether the very same request may succeed a little later.
        status: Name of the gRPC status, such as `INVALID_ARGUMENT`.
        metadata: Further facts, such as the name of the field.
        request_id: Under which the server's logs tell of the request; empty when it did not get there.
        retry_seconds: When a repeat may succeed, where the server says so.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        fix: str | None = None,
        retryable: bool = False,
        status: str = "UNKNOWN",
        metadata: dict[str, str] | None = None,
        request_id: str = "",
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.fix = fix
        self.retryable = retryable
        self.status = status
        self.metadata = dict(metadata or {})
        self.request_id = request_id
        self.retry_seconds = retry_seconds


def from_grpc(error: Any, address: str) -> VisemeError:
    """The VisemeError for a failed call.

    Args:
        error: A `grpc.RpcError` of a synchronous or asynchronous call.
        address: Where the server was expected.
    """
    status = error.code()
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            told = _told(status_pb2.Status.FromString(value), error.details(), status.name)
            if told is not None:
                return told
    if status is grpc.StatusCode.UNAVAILABLE:
        return VisemeError(
            f"No viseme server answers at {address}.",
            reason="SERVER_UNREACHABLE",
            fix="Start one: viseme serve",
            retryable=True,
            status=status.name,
        )
    if status is grpc.StatusCode.CANCELLED:
        # Not by us: a server that stops does so to requests that come while it does.
        return VisemeError(
            f"The viseme server at {address} ended the request; it is probably stopping.",
            reason="SERVER_STOPPING",
            fix="Try again; if it stays so, start a server: viseme serve",
            retryable=True,
            status=grpc.StatusCode.UNAVAILABLE.name,
        )
    if is_write_failure(error):
        return VisemeError(
            f"The connection to the viseme server at {address} broke.",
            reason="SERVER_UNREACHABLE",
            fix="Try again; if it stays so, start a server: viseme serve",
            retryable=True,
            status=grpc.StatusCode.UNAVAILABLE.name,
        )
    return VisemeError(error.details() or status.name, reason=status.name, status=status.name)


def from_status(status: Any) -> VisemeError:
    """The VisemeError for the `google.rpc.Status` that an operation ended with."""
    name = _STATUS_NAMES.get(status.code, grpc.StatusCode.UNKNOWN.name)
    told = _told(status, status.message, name)
    return told or VisemeError(status.message or name, reason=name, status=name)


def _told(status: Any, message: str | None, name: str) -> VisemeError | None:
    """The error in a `google.rpc.Status`, or None where it is not one of viseme's."""
    info, request_id, retry_seconds = None, "", None
    for detail in status.details:
        found = error_details_pb2.ErrorInfo()
        if detail.Is(found.DESCRIPTOR) and detail.Unpack(found) and found.domain == _DOMAIN:
            info = found
        retry, request = error_details_pb2.RetryInfo(), error_details_pb2.RequestInfo()
        if detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
        if detail.Is(request.DESCRIPTOR) and detail.Unpack(request):
            request_id = request.request_id
    if info is None:
        return None
    metadata = dict(info.metadata)
    return VisemeError(
        message or info.reason,
        reason=info.reason,
        fix=metadata.pop("fix", None),
        retryable=retry_seconds is not None,
        status=name,
        metadata=metadata,
        request_id=request_id,
        retry_seconds=retry_seconds,
    )
