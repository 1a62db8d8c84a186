"""How an error travels to the caller: gRPC status, ErrorInfo, and RetryInfo when a repeat may help."""

from __future__ import annotations

from typing import Any, Final

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from server.errors import DOMAIN, VisemeError

_RETRY_SECONDS: Final = 1


def to_status(error: VisemeError) -> grpc.Status:
    """The status that a call ends with for an error."""
    return rpc_status.to_status(status_message(error))


def status_message(error: VisemeError) -> Any:
    """The google.rpc.Status of an error, with its details (AIP-193)."""
    details = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.info())]
    if error.retryable:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = _RETRY_SECONDS
        details.append(retry)
    packed = []
    for detail in details:
        any_detail = any_pb2.Any()
        any_detail.Pack(detail)
        packed.append(any_detail)
    code: int = error.status.value[0]
    return status_pb2.Status(code=code, message=error.message, details=packed)
