"""A private server with everything it needs, prepared under the user's eyes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from server.cli import demo_texts as texts
from server.cli.console import say, size_text, stderr
from server.cli.preparation import Missing, Preparation
from server.cli.private_server import PrivateServer
from server.cli.progress import ProgressDisplay
from server.cli.settings import read_settings, shown_path


@contextmanager
def local_server(config: Path | None) -> Iterator[str]:
    """Builds and downloads what is missing, runs a server, and yields its address.

    Raises:
        VisemeError: If something cannot be built or downloaded.
        CommandError: If the server does not start.
    """
    settings = read_settings(config)
    preparation = Preparation(settings)
    missing = preparation.missing(preparation.serving_hosts())
    if missing:
        say(texts.FIRST_RUN.format(what=_what(missing), home=shown_path(settings.home)))
        with ProgressDisplay() as progress:
            preparation.complete(missing, progress)
    with ExitStack() as stack:
        with stderr().status(texts.STARTING):
            address = stack.enter_context(PrivateServer(settings.home, config))
        yield address


def _what(missing: Missing) -> str:
    """What is missing, in words."""
    parts = []
    if count := len(missing.environments):
        parts.append(texts.ENVIRONMENTS.format(count=count) if count > 1 else texts.ENVIRONMENT)
    if missing.assets:
        parts.append(texts.MODELS.format(size=size_text(missing.download_bytes)))
    return texts.AND.join(parts)
