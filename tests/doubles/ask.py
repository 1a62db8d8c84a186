"""Asking a server in tests."""

from __future__ import annotations

import contextlib
from typing import Any

from viseme import AsyncClient, Event, Reply, VisemeError


async def ask(address: str, audio: Any = None, **options: Any) -> tuple[Reply, list[Event]]:
    """A reply, and all its events with the fragments."""
    events: list[Event] = []
    async with (
        AsyncClient(address) as client,
        contextlib.aclosing(client.stream_reply(audio, **options)) as stream,
    ):
        async for event in stream:
            events.append(event)
    reply = events[-1]
    assert isinstance(reply, Reply)
    return reply, events


async def refusal(address: str, audio: Any = None, **options: Any) -> VisemeError:
    """The error of a request that is refused; it must be fit to be shown to a person."""
    try:
        await ask(address, audio, **options)
    except VisemeError as error:
        check_sentence(error)
        return error
    raise AssertionError("the request was not refused")


def check_sentence(error: VisemeError) -> None:
    """One sentence, no traceback, no path of the machine's code."""
    assert error.message.strip(), error.reason
    assert error.message.endswith((".", "!", "?")), error.message
    assert "\n" not in error.message and "Traceback" not in error.message, error.message
    assert ".py" not in error.message, error.message
    assert error.reason.isupper(), error.reason
