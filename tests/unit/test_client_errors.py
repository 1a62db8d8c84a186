"""Errors as the client library gives them, of calls and of operations."""

from __future__ import annotations

import pytest
from google.rpc import status_pb2
from viseme import VisemeError
from viseme._errors import from_status

from server.error_status import status_message
from server.errors import AvatarBusy, ClipRefused, HostLost
from server.errors import VisemeError as ServerError


@pytest.mark.parametrize(
    "error",
    [
        ClipRefused("Nobody is seen.", fix="Show a face.", codes="NO_FACE"),
        AvatarBusy(fix="viseme avatars watch ada"),
        HostLost(),
    ],
    ids=lambda error: error.reason,
)
def test_an_error_of_the_server_arrives_whole(error: ServerError) -> None:
    got = from_status(status_message(error))
    assert isinstance(got, VisemeError)
    assert (got.message, got.reason, got.fix, got.retryable) == (
        error.message,
        error.reason,
        error.fix,
        error.retryable,
    )
    assert (got.status, got.metadata) == (error.status.name, error.metadata)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (status_pb2.Status(code=3, message="No."), ("No.", "INVALID_ARGUMENT")),
        (status_pb2.Status(code=13), ("INTERNAL", "INTERNAL")),
        (status_pb2.Status(code=99, message="Odd."), ("Odd.", "UNKNOWN")),
    ],
    ids=["message", "code only", "unknown code"],
)
def test_errors_of_others_are_told_as_they_are(status: status_pb2.Status, expected: tuple[str, str]) -> None:
    got = from_status(status)
    assert (got.message, got.reason) == expected
    assert (got.status, got.fix, got.retryable) == (expected[1], None, False)
