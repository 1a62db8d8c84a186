from __future__ import annotations

import re

import grpc
from google.rpc import error_details_pb2, status_pb2

from server import errors
from server.error_status import to_status
from server.errors import HostLost, VisemeError, error_for_reason


def tree(kind: type[VisemeError]) -> list[type[VisemeError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in tree(child))]


def test_the_drawing_is_the_tree() -> None:
    assert errors.__doc__
    drawn = {
        name: (status, reason)
        for name, status, reason in re.findall(
            r"([A-Z]\w+)(?: \(retryable\))? +([A-Z_]+) +([A-Z_]+)$", errors.__doc__, re.MULTILINE
        )
    }
    real = {kind.__name__: (kind.status.name, kind.reason) for kind in tree(VisemeError)}
    assert drawn == real


def test_every_error_has_a_sentence() -> None:
    for kind in tree(VisemeError):
        message = kind().message
        assert message.endswith(".") and "\n" not in message and message[0].isupper(), kind


def test_reasons_lead_back_to_their_class() -> None:
    leaves = [kind for kind in tree(VisemeError) if not kind.__subclasses__()]
    assert len({kind.reason for kind in leaves}) == len(leaves)
    for kind in leaves:
        assert error_for_reason(kind.reason) is kind
    assert error_for_reason("NOTHING_OF_THE_KIND") is None


def test_status_has_everything_the_caller_needs() -> None:
    status = to_status(HostLost("It died.", fix="Try again.", host="kokoro"))
    assert (status.code, status.details) == (grpc.StatusCode.UNAVAILABLE, "It died.")
    ((_, value),) = status.trailing_metadata
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    details = status_pb2.Status.FromString(value).details
    assert details[0].Unpack(info) and details[1].Unpack(retry)
    assert (info.reason, info.domain) == ("HOST_LOST", "viseme")
    assert dict(info.metadata) == {"host": "kokoro", "fix": "Try again."}
    assert retry.retry_delay.seconds == 1
    assert len(status_pb2.Status.FromString(to_status(VisemeError()).trailing_metadata[0][1]).details) == 1
