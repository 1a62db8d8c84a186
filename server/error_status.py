"""How an error travels to the caller: gRPC status, ErrorInfo, and RetryInfo when a repeat may help."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from server.errors import DOMAIN, VisemeError


def to_status(error: VisemeError, request_id: str = "") -> grpc.Status:
    """The status that a call ends with for an error."""
    return rpc_status.to_status(status_message(error, request_id))


def status_message(error: VisemeError, request_id: str = "") -> Any:
    """The google.rpc.Status of an error, with its details (AIP-193).

    Args:
        error: What went wrong.
        request_id: Under which the logs tell of the call, or empty.
    """
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.info())
    ]
    if error.retryable:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_seconds * 1e9))
        details.append(retry)
    if request_id:
        details.append(error_details_pb2.RequestInfo(request_id=request_id))
    packed = []
    for detail in details:
        any_detail = any_pb2.Any()
        any_detail.Pack(detail)
        packed.append(any_detail)
    code: int = error.status.value[0]
    return status_pb2.Status(code=code, message=error.message, details=packed)
