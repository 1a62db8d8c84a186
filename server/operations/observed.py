"""Operations as they are seen from outside: their id in all logs, their wait and outcome in the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from google.protobuf.message import Message

from server.errors import VisemeError
from server.metrics import Metrics
from server.operations.runner import Report, Work
from server.operations.store import OperationRecord, OperationStore
from server.request_id import request

_PAGE: Final = 500


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


def waiting(store: OperationStore | None) -> Iterable[tuple[str, int]]:
    """How many operations of a store wait, and how many are carried out. Blocks."""
    states = Counter({"pending": 0, "running": 0})
    last = 0
    while store is not None:
        records = store.page(last, _PAGE, done=False)
        states.update(record.state for record in records)
        if len(records) < _PAGE:
            break
        last = records[-1].sequence
    return states.items()
