"""`viseme.v1.JobService`: what google.longrunning.Operations has no calls for."""

from __future__ import annotations

from typing import Any, Final

from viseme.v1 import avatar_pb2, job_pb2, job_pb2_grpc

from server.api.interceptors import Context
from server.api.operations import operation_message
from server.errors import FieldInvalid
from server.operations import avatar_work
from server.operations.desk import OperationDesk

_LOG_LINES: Final = 100
_MAX_LOG_LINES: Final = 10_000
Metadata = avatar_pb2.AvatarOperationMetadata


class JobServicer(job_pb2_grpc.JobServiceServicer):
    """See job.proto.

    Args:
        desk: Answers for the operations.
    """

    def __init__(self, desk: OperationDesk) -> None:
        self._desk = desk

    async def RetryOperation(  # noqa: N802 (named by the proto)
        self, request: job_pb2.RetryOperationRequest, context: Context
    ) -> Any:
        """Does again what failed or was cancelled."""
        record = await self._desk.get(request.name)
        creates = record.kind == avatar_work.CREATE
        progress = Metadata(
            avatar=record.target, task=Metadata.TASK_PREPARE if creates else Metadata.TASK_TRAIN
        )
        return operation_message(await self._desk.retry(request.name, progress, request.request_id))

    async def GetOperationLog(  # noqa: N802 (named by the proto)
        self, request: job_pb2.GetOperationLogRequest, context: Context
    ) -> job_pb2.GetOperationLogResponse:
        """Returns the end of the log of an operation."""
        if request.lines < 0:
            raise FieldInvalid("lines must not be negative.", field="lines")
        response = job_pb2.GetOperationLogResponse()
        for line in await self._desk.log(request.name, min(request.lines or _LOG_LINES, _MAX_LOG_LINES)):
            response.lines.add(text=line.text).time.FromNanoseconds(int(line.time * 1e9))
        return response
