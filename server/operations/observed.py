"""Operations as they are seen from outside: their id in all logs, their wait and outcome in the metrics."""

from __future__ import annotations

from google.protobuf.message import Message

from server.errors import VisemeError
from server.metrics import Metrics
from server.operations.runner import Report, Work
from server.operations.store import OperationRecord
from server.request_id import request


def observed(work: Work, metrics: Metrics) -> Work:
    """What carries out an operation, watched."""

    async def run(record: OperationRecord, report: Report) -> Message:
        with request(record.id):
            if record.attempt == 1:
                metrics.operation_begun(record.kind, (record.started or 0) - record.created)
            outcome = "interrupted"
            try:
                response = await work(record, report)
                outcome = "done"
            except VisemeError as error:
                outcome = error.reason.lower()
                raise
            finally:
                metrics.operation_ended(record.kind, outcome)
            return response

    return run
