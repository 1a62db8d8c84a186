"""Talks with a viseme server.

::

    from viseme import Client

    with Client() as client:
        reply = client.reply(audio="question.ogg", avatar="avatars/demo")
        reply.save("reply.mp4")
        print(reply.transcript, "->", reply.text)

`AsyncClient` is the same with `await`. Whatever goes wrong is a `VisemeError` with a `reason`, a sentence,
and a `fix` where there is one. The protocol itself is in `viseme.v1`.
"""

# Hosts import `viseme.host.v1` from here, some on Python 3.7, and need nothing of the client: it loads late.

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from viseme._async_client import AsyncClient
    from viseme._client import Client
    from viseme._errors import VisemeError
    from viseme._types import (
        Avatar,
        AvatarPreview,
        Event,
        Finding,
        Fragment,
        Gpu,
        Host,
        Lease,
        LogLine,
        Operation,
        Progress,
        RenderSummary,
        Reply,
        Sentence,
        ServerStatus,
        StageTiming,
        Transcript,
        VideoPiece,
    )

__all__ = [
    "AsyncClient",
    "Avatar",
    "AvatarPreview",
    "Client",
    "Event",
    "Finding",
    "Fragment",
    "Gpu",
    "Host",
    "Lease",
    "LogLine",
    "Operation",
    "Progress",
    "RenderSummary",
    "Reply",
    "Sentence",
    "ServerStatus",
    "StageTiming",
    "Transcript",
    "VideoPiece",
    "VisemeError",
]

_MODULES = {"AsyncClient": "_async_client", "Client": "_client", "VisemeError": "_errors"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module("{}.{}".format(__name__, _MODULES.get(name, "_types")))
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
