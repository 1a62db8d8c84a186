"""Errors of hosts as gRPC statuses with a google.rpc.ErrorInfo."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

DOMAIN = "viseme"
# Trailing metadata beyond 8 KiB is refused by gRPC, and the message travels in it twice.
_MESSAGE_LIMIT = 1500


class HostError(Exception):
    """A call fails in a way that its caller should hear about.

    Attributes:
        code: gRPC status.
        reason: UPPER_SNAKE reason, such as `ASSET_MISSING`.
        message: One sentence that says what was wrong.
        fix: A command or an action that puts it right, or None.
        metadata: Further facts; never what users said.
    """

    def __init__(
        self, code: grpc.StatusCode, reason: str, message: str, fix: str | None = None, **metadata: str
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.fix = fix
        self.metadata = metadata


class RichStatus(grpc.Status):
    """A status with its details packed as AIP-193 asks, for `ServicerContext.abort_with_status`."""

    def __init__(self, error: HostError) -> None:
        message = error.message[:_MESSAGE_LIMIT]
        metadata = dict(error.metadata)
        if error.fix:
            metadata["fix"] = error.fix
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
        status = status_pb2.Status(code=error.code.value[0], message=message, details=[detail])
        self.code = error.code
        self.details = message
        self.trailing_metadata = (("grpc-status-details-bin", status.SerializeToString()),)
