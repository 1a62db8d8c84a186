"""A server from its start to the signal that ends it."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable
from typing import Final

import structlog

from server.app import Application
from server.config import Settings
from server.errors import ConfigInvalid
from server.progress import ProgressSink

_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("server")


async def serve(
    settings: Settings,
    *,
    ready: Callable[[str], None] | None = None,
    progress: ProgressSink | None = None,
    warm: bool = False,
    reread: Callable[[], Settings] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM; a second signal ends the grace.

    Args:
        settings: The settings.
        ready: Is told the address once the server answers.
        progress: Hears of environments being built.
        warm: Whether the model hosts are started at once, instead of when they are first needed.
        reread: Reads the settings again; when given, SIGHUP has the language models taken from them.

    Raises:
        PortInUse: Another program listens on the port.
    """
    application = Application(settings, progress=progress)
    stopping, hurried = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurried if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    reloads: set[asyncio.Task[None]] = set()

    def on_hangup(reread: Callable[[], Settings]) -> None:
        reload = asyncio.ensure_future(_reload(application, reread))
        reloads.add(reload)
        reload.add_done_callback(reloads.discard)

    if reread is not None:
        loop.add_signal_handler(signal.SIGHUP, on_hangup, reread)
    warming: asyncio.Future[None] | None = None
    try:
        address = await application.start()
        # What is there now stays: the collector need not look at it again, which would hold up all calls.
        gc.collect()
        gc.freeze()
        if ready is not None:
            ready(address)
        if warm:
            warming = asyncio.ensure_future(application.warm())
        await stopping.wait()
        _log.info("stopping", grace_seconds=settings.stop_grace_seconds)
    finally:
        if warming is not None:
            warming.cancel()
        graceful = asyncio.ensure_future(application.stop())
        hurry = asyncio.ensure_future(hurried.wait())
        await asyncio.wait({graceful, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not graceful.done():
            await application.hurry()
        hurry.cancel()
        await graceful
        for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if reread is not None else [])):
            loop.remove_signal_handler(number)


async def _reload(application: Application, reread: Callable[[], Settings]) -> None:
    """Takes the language models of the settings as they are now; what is wrong there changes nothing."""
    try:
        settings = await asyncio.to_thread(reread)
    except (ConfigInvalid, OSError) as error:
        _log.error("llm_not_reloaded", problem=str(error))
        return
    await application.use_models(settings.llm)
