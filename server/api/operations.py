"""`google.longrunning.Operations`: what long work is doing, and how it ended."""

from __future__ import annotations

from typing import Any, Final

from google.longrunning import operations_pb2, operations_pb2_grpc  # type: ignore[import-untyped]
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from viseme.v1 import avatar_pb2

from server.api.interceptors import Context
from server.api.pages import invalid_token, last_given, next_token, page_size
from server.errors import FieldInvalid, FieldRequired
from server.operations.desk import OperationDesk
from server.operations.store import OperationRecord

_COLLECTION: Final = "operations"
_MOST_WAIT_SECONDS: Final = 60.0
_FILTERS: Final = {"": None, "done=true": True, "done=false": False}


class OperationsServicer(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc]  # untyped package
    """See google/longrunning/operations.proto.

    Args:
        desk: Answers for the operations.
    """

    def __init__(self, desk: OperationDesk) -> None:
        self._desk = desk

    async def GetOperation(  # noqa: N802 (named by the proto)
        self, request: Any, context: Context
    ) -> Any:
        """Returns one operation."""
        return operation_message(await self._desk.get(_named(request)))

    async def ListOperations(  # noqa: N802 (named by the proto)
        self, request: Any, context: Context
    ) -> Any:
        """Lists the operations, oldest first."""
        if request.name not in {"", _COLLECTION}:
            raise FieldInvalid(f"name must be empty or '{_COLLECTION}'.", field="name")
        if request.filter not in _FILTERS:
            raise FieldInvalid("filter must be empty, done=true or done=false.", field="filter")
        size = page_size(request.page_size)
        last = last_given(request.page_token) or "0"
        if not last.isdecimal():
            raise invalid_token()
        # One more tells whether there is another page.
        records = await self._desk.page(int(last), size + 1, done=_FILTERS[request.filter])
        given = records[:size]
        return operations_pb2.ListOperationsResponse(
            operations=[operation_message(record) for record in given],
            next_page_token=next_token(str(given[-1].sequence)) if len(records) > size else "",
        )

    async def CancelOperation(  # noqa: N802 (named by the proto)
        self, request: Any, context: Context
    ) -> Empty:
        """Cancels an operation."""
        await self._desk.cancel(_named(request))
        return Empty()

    async def WaitOperation(  # noqa: N802 (named by the proto)
        self, request: Any, context: Context
    ) -> Any:
        """Returns an operation when it is done, or after the timeout as it is then."""
        seconds = _MOST_WAIT_SECONDS
        if request.HasField("timeout"):
            seconds = min(max(0.0, request.timeout.ToTimedelta().total_seconds()), _MOST_WAIT_SECONDS)
        return operation_message(await self._desk.wait(_named(request), seconds))

    async def DeleteOperation(  # noqa: N802 (named by the proto)
        self, request: Any, context: Context
    ) -> Empty:
        """Forgets an operation that is done."""
        await self._desk.delete(_named(request))
        return Empty()


def _named(request: Any) -> str:
    if not request.name:
        raise FieldRequired("name is required.", field="name")
    return str(request.name)


def operation_message(record: OperationRecord) -> Any:
    """An operation as the public API gives it."""
    metadata = AnyMessage()
    metadata.Pack(avatar_pb2.AvatarOperationMetadata.FromString(record.metadata))
    message = operations_pb2.Operation(name=record.name, metadata=metadata, done=record.state == "done")
    if record.error is not None:
        message.error.ParseFromString(record.error)
    elif record.response is not None:
        message.response.ParseFromString(record.response)
    return message
