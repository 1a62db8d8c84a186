"""`viseme serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.failures import guarded
from server.cli.settings import ConfigOption


@guarded
def serve(
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where to listen; port 0 finds a free one.",
            show_default="127.0.0.1:50551",
        ),
    ] = None,
    warm: Annotated[
        bool, typer.Option("--warm", help="Prepare and start all hosts before the first request.")
    ] = False,
    config: ConfigOption = None,
    private: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Serve avatars until Ctrl-C; running requests are finished first, a second Ctrl-C ends them.

    Examples: viseme serve; viseme serve --listen 127.0.0.1:0 --warm
    """
    import asyncio
    import sys

    from server import serving
    from server.cli.console import say
    from server.cli.preparation import Preparation
    from server.cli.progress import ProgressDisplay
    from server.cli.settings import check_home, read_settings
    from server.logging import configure_logging

    # One of a single command answers that command only, on this machine.
    plain = {"access": {"tokens": False}, "tls": {"certificate": "", "key": "", "client_ca": ""}}
    settings = read_settings(config, listen=listen, **(plain if private else {}))
    check_home(settings)
    if warm:
        preparation = Preparation(settings)
        with ProgressDisplay() as progress:
            preparation.complete(preparation.missing(preparation.serving_hosts()), progress)
    configure_logging(json=settings.observability.json_logs)

    def ready(address: str) -> None:
        if private:
            _obey_parent(address)
        else:
            say(f"viseme serves at {address}. Ask it: viseme say FILE -o reply.mp4. Stop it: Ctrl-C.")

    # In a terminal SIGHUP means that it was closed.
    reloads = not private and not sys.stdin.isatty()
    reread = (lambda: read_settings(config, listen=listen)) if reloads else None
    asyncio.run(serving.serve(settings, ready=ready, warm=warm, reread=reread))


def _obey_parent(address: str) -> None:
    """Tells the parent where we are, and stops when it closes our standard input or dies."""
    import os
    import signal
    import sys
    import threading

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    sys.stdout.write(f"{address}\n")
    sys.stdout.flush()
    threading.Thread(target=wait, name="parent", daemon=True).start()
