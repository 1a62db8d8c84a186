from __future__ import annotations

import asyncio
import threading

from tests.doubles.llm import LlmPlan
from tests.doubles.recordings import recording
from tests.integration.conftest import World
from viseme import Client


async def test_voice_note_becomes_a_video(world: World) -> None:
    def ask():
        events = []
        with Client(world.address) as client:
            return client.reply(recording("ogg"), on_event=events.append), events

    reply, events = await asyncio.to_thread(ask)
    print(reply, events)
    assert reply.video[4:8] == b"ftyp"
