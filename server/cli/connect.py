"""The server that a command asks: a running one, or one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.failures import CommandError, ExitCode

if TYPE_CHECKING:
    from viseme import Client


@contextmanager
def connected(address: str, *, local: bool, config: Path | None) -> Iterator[Client]:
    """Yields a client.

    Args:
        address: The server that runs already.
        local: Whether to start one for this command instead.
        config: Configuration file of a server that is started.

    Raises:
        CommandError: If no server answers; it says how to get one.
        VisemeError: As the calls of the client, or if a server cannot be prepared.
    """
    from viseme import Client, VisemeError

    with ExitStack() as stack:
        if local:
            from server.cli.local import local_server

            address = stack.enter_context(local_server(config))
            client = stack.enter_context(Client(address, token="", ca_file=""))
        else:
            client = stack.enter_context(Client(address))
        try:
            yield client
        except VisemeError as error:
            if error.reason != "SERVER_UNREACHABLE":
                raise
            raise CommandError(
                error.message,
                fix="viseme serve (in another terminal), or add --local for a server of its own",
                code=ExitCode.UNREACHABLE,
            ) from error
