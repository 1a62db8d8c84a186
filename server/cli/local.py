"""A private server with everything it needs, prepared under the user's eyes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from server.cli import demo_texts as texts
from server.cli.console import say, size_text, stderr
from server.cli.preparation import Missing, Preparation
from server.cli.private_server import PrivateServer
from server.cli.progress import ProgressDisplay
from server.cli.settings import check_home, read_settings, shown_path

if TYPE_CHECKING:
    from server.config import Settings

LOAD_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.2


@contextmanager
def local_server(config: Path | None) -> Iterator[str]:
    """Builds and downloads what is missing, runs a server, and yields its address.

    Raises:
        VisemeError: If something cannot be built or downloaded.
        CommandError: If the server does not start.
    """
    settings = read_settings(config)
    check_home(settings)
    preparation = Preparation(settings)
    missing = preparation.missing(preparation.serving_hosts())
    if missing:
        say(texts.FIRST_RUN.format(what=_what(missing), home=shown_path(settings.home)))
        with ProgressDisplay() as progress:
            preparation.complete(missing, progress)
    with ExitStack() as stack:
        with stderr().status(texts.STARTING):
            address = stack.enter_context(PrivateServer(settings.home, config))
        _wait_for_models(address, settings)
        yield address


def _wait_for_models(address: str, settings: Settings) -> None:
    """Waits, with a display, until the hosts have loaded; if one cannot, the request will say why."""
    from viseme import Client

    names = settings.hosts
    wanted = {f"hosts/{name}" for name in (names.transcribe, names.synthesize, names.render)}
    if settings.llm.embedded and not settings.llm.providers:
        wanted.add(f"hosts/{names.chat}")
    give_up = time.monotonic() + LOAD_SECONDS
    with Client(address, token="", ca_file="") as client, ProgressDisplay() as progress:
        while time.monotonic() < give_up:
            hosts = [host for host in client.admin.hosts() if host.name in wanted]
            states = [host.state for host in hosts]
            # What a command has to put right does not come by waiting.
            stuck = any(host.problem and host.fix.startswith("viseme ") for host in hosts)
            ready = states.count("READY")
            progress.update(texts.LOADING, ready, len(wanted), texts.HOSTS)
            if stuck or ready == len(wanted) or "FAILED" in states or "BACKING_OFF" in states:
                break
            time.sleep(POLL_SECONDS)
        progress.finish(texts.LOADING)


def _what(missing: Missing) -> str:
    """What is missing, in words."""
    parts = []
    if count := len(missing.environments):
        parts.append(texts.ENVIRONMENTS.format(count=count) if count > 1 else texts.ENVIRONMENT)
    if missing.assets:
        parts.append(texts.MODELS.format(size=size_text(missing.download_bytes)))
    return texts.AND.join(parts)
