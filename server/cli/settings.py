"""The settings as commands read them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from server.config import Settings

DEFAULT_SERVER: Final = "127.0.0.1:50551"
DEFAULT_AVATAR: Final = "avatars/demo"

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration file.", show_default="configs/viseme.toml"),
]
ServerOption = Annotated[
    str,
    typer.Option("--server", envvar="VISEME_SERVER", metavar="HOST:PORT", help="The server to ask."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]


def read_settings(config: Path | None, **values: object) -> Settings:
    """Reads the settings; values that are None are left to the file and the environment.

    Raises:
        ConfigInvalid: As `server.config.load_settings`.
    """
    from server.config import load_settings

    return load_settings(config, **{name: value for name, value in values.items() if value is not None})


def check_home(settings: Settings) -> None:
    """Makes sure that there is a VISEME_HOME to write to, before anything is begun.

    Raises:
        CommandError: If there is none.
    """
    import tempfile

    from server.cli.failures import CommandError, ExitCode

    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.home):
            pass
    except OSError as error:
        # A full disk is told where it matters, with how much is needed.
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return
        raise CommandError(
            f"viseme cannot write to its home {settings.home}: {error.strerror}.",
            fix="Set VISEME_HOME to a directory that you may write to.",
            code=ExitCode.NOT_READY,
        ) from error


def shown_path(path: Path) -> str:
    """A path as people write it: with `~`, or relative when it is below the current directory."""
    for base, mark in ((Path.cwd(), ""), (Path.home(), "~" + os.sep)):
        if path.is_relative_to(base):
            return mark + str(path.relative_to(base))
    return str(path)
