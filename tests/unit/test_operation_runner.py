"""The runner keeps what it has until the database takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from viseme.v1 import avatar_pb2

from server.errors import StoreUnavailable
from server.operations.runner import OperationRunner, Report
from server.operations.sqlite import SqliteStore
from server.operations.store import LogLine, OperationRecord
from tests.unit.operation_stores import accept

Metadata = avatar_pb2.AvatarOperationMetadata


async def test_a_result_waits_for_the_database(tmp_path: Path) -> None:
    begun, may_end, missed = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Watched(SqliteStore):
        def log(self, record: OperationRecord, lines: Sequence[LogLine]) -> None:
            """The first thing that is stored at the end."""
            try:
                super().log(record, lines)
            except StoreUnavailable:
                loop.call_soon_threadsafe(missed.set)
                raise

    attempts: list[int] = []

    async def work(record: OperationRecord, report: Report) -> Message:
        attempts.append(record.attempt)
        report(Metadata(stage="face", fraction=0.5))
        begun.set()
        await may_end.wait()
        return avatar_pb2.Avatar(name="avatars/ada")

    path, elsewhere = tmp_path / "operations.db", tmp_path / "elsewhere"
    elsewhere.mkdir()
    store = Watched(path)
    runner = OperationRunner(store, {"train": work})
    runner.start()
    accepted = accept(store, metadata=b"")
    runner.wake()
    await begun.wait()
    for file in list(tmp_path.glob("operations.db*")):  # noqa: ASYNC240 (three files)
        file.rename(elsewhere / file.name)
    may_end.set()
    async with asyncio.timeout(10):
        await missed.wait()
    for file in list(elsewhere.iterdir()):
        file.rename(tmp_path / file.name)
    async with asyncio.timeout(10):
        while (record := store.get(accepted.name)).state != "done":  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.02)
    response = AnyMessage.FromString(record.response or b"")
    avatar = avatar_pb2.Avatar()
    assert response.Unpack(avatar) and avatar.name == "avatars/ada"
    assert attempts == [1] and Metadata.FromString(record.metadata).fraction == 0.5
    assert [line.text for line in store.read_log(record, 10)] == ["Begun.", "Stage: face", "Done."]
    await runner.stop()
    store.close()
