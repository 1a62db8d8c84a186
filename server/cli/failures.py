"""What a command does when something goes wrong: one sentence, the command that helps, an exit code.

Exit codes:

====  =====================================================================================================
0     It worked.
1     It failed; `viseme doctor` also ends with 1 when the demo could not run here.
2     The command line is wrong.
3     What was given cannot be used: not a recording, too long, a name that is not allowed.
4     What was named does not exist.
5     The server, a host or the network cannot be reached, or took too long; trying again may help.
6     Something has to be put right first: a file is not installed, a port is taken, the disk is full.
130   Interrupted with Ctrl-C.
====  =====================================================================================================
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Final, ParamSpec

import typer

from server.cli.interrupt import interruptible

P = ParamSpec("P")


class ExitCode(IntEnum):
    """Exit codes of `viseme`; the module explains them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_FOUND = 4
    UNREACHABLE = 5
    NOT_READY = 6
    INTERRUPTED = 130


EPILOG: Final = (
    "Exit codes: 0 it worked, 1 it failed, 2 the command line is wrong, 3 what was given cannot be used, "
    "4 not found, 5 the server cannot be reached, 6 something must be put right first, 130 interrupted."
)

_BY_STATUS: Final = {
    "INVALID_ARGUMENT": ExitCode.REFUSED,
    "OUT_OF_RANGE": ExitCode.REFUSED,
    "ALREADY_EXISTS": ExitCode.REFUSED,
    "PERMISSION_DENIED": ExitCode.REFUSED,
    "UNAUTHENTICATED": ExitCode.REFUSED,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "UNAVAILABLE": ExitCode.UNREACHABLE,
    "DEADLINE_EXCEEDED": ExitCode.UNREACHABLE,
    "FAILED_PRECONDITION": ExitCode.NOT_READY,
    "RESOURCE_EXHAUSTED": ExitCode.NOT_READY,
}


class CommandError(Exception):
    """A command cannot go on; its text is one sentence for the user."""

    def __init__(self, message: str, *, fix: str | None = None, code: ExitCode = ExitCode.FAILED) -> None:
        """Sets what is told.

        Args:
            message: One sentence that says what is wrong.
            fix: A command or an action that helps.
            code: Exit code of the process.
        """
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.code = code


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """Makes a command turn every failure into a message and an exit code; there is never a traceback.

    The command returns its exit code, or None when it worked.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with interruptible():
                code = command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            _tell("Stopped.", None)
            code = ExitCode.INTERRUPTED
        except BrokenPipeError:
            # The reader of our output has gone, as `| head` does; there is nobody left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = ExitCode.OK
        except CommandError as error:
            _tell(error.message, error.fix)
            code = error.code
        except Exception as error:
            code = _unexpected(error)
        if code:
            raise typer.Exit(int(code))

    run.__doc__ = _unwrapped(command.__doc__ or "")
    return run


def _unwrapped(text: str) -> str:
    """A docstring with each paragraph on one line; the terminal's width breaks it."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


def exit_code(error: Exception) -> ExitCode | None:
    """The exit code for an error of the server or of the client library; None when it is neither."""
    status = getattr(error, "status", None)
    # The client library gives the name of the status, the server's own errors the status.
    name = status if isinstance(status, str) else getattr(status, "name", None)
    if not isinstance(getattr(error, "reason", None), str) or not isinstance(name, str):
        return None
    return _BY_STATUS.get(name, ExitCode.FAILED)


def _unexpected(error: Exception) -> ExitCode:
    code = exit_code(error)
    if code is not None:
        fix = getattr(error, "fix", None)
        _tell(str(getattr(error, "message", error)), fix if isinstance(fix, str) and fix else None)
        return code
    if isinstance(error, OSError):
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)
        _tell(f"{what}.", None)
        return ExitCode.FAILED
    _tell(
        f"Something went wrong inside viseme ({type(error).__name__}: {error}).",
        "viseme doctor; if it finds nothing, report this with the command you gave",
    )
    return ExitCode.FAILED


def _tell(message: str, fix: str | None) -> None:
    from server.cli.console import stderr

    console = stderr()
    console.print("[bold red]Error:[/] ", end="")
    console.print(message, markup=False)
    if fix:
        console.print("[bold]Try:[/]   ", end="")
        console.print(fix, markup=False)
