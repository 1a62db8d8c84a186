"""`viseme jobs`: the long work of a server, whatever it is done to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from server.cli.failures import CommandError, ExitCode, guarded
from server.cli.settings import DEFAULT_SERVER, JsonOption, ServerOption

if TYPE_CHECKING:
    from viseme import Client, Operation

app = typer.Typer(
    no_args_is_help=True, help="Long work: what is under way and what came of it, cancelling, trying again."
)

CANCEL_SECONDS: Final = 30.0
"""How long a cancelled operation is waited for."""

_SHORT: Final = 6
"""Letters of an id that people need to type."""

JobName = Annotated[
    str,
    typer.Argument(metavar="ID", help="An operation: the id that the list shows, or its whole name."),
]


@app.command("list")
@guarded
def list_jobs(
    active: Annotated[bool, typer.Option("--active", help="Only what waits or is under way.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    json: JsonOption = False,
) -> None:
    """List the long work that the server remembers, oldest first.

    Example: viseme jobs list --active
    """
    from viseme import Client

    from server.cli.console import print_json, print_table, to_data

    with Client(server) as client:
        operations = client.operations.list(done=False if active else None)
    if json:
        print_json({"operations": [to_data(operation) for operation in operations]})
        return
    columns = ("ID", "WORK", "AVATAR", "STATE", "DONE", "LEFT", "BEGUN", "ASKED FOR")
    print_table(columns, [_row(operation) for operation in operations], "There is no long work.")


@app.command("watch")
@guarded
def watch(name: JobName, server: ServerOption = DEFAULT_SERVER, json: JsonOption = False) -> None:
    """Show how far an operation is, until it is done; Ctrl-C stops only the showing.

    Ends with the exit code of the work. With --json it writes a line whenever something changes.

    Example: viseme jobs watch 3f9a1c
    """
    from viseme import Client

    from server.cli.console import say, stdout
    from server.cli.operation_view import follow

    with Client(server) as client:
        found = _found(client, name)
        try:
            operation = follow(client, found, json=json)
        except KeyboardInterrupt:
            say(f"Stopped watching; the work goes on. To end it: viseme jobs cancel {_short(found)}")
            raise typer.Exit(int(ExitCode.INTERRUPTED)) from None
    if operation.error is not None:
        raise operation.error
    if not json:
        stdout().print(f"Done: {operation.name} ({operation.avatar_name})", markup=False)


@app.command("cancel")
@guarded
def cancel(name: JobName, server: ServerOption = DEFAULT_SERVER, json: JsonOption = False) -> None:
    """End an operation early; what it has done is kept, and `viseme jobs retry` goes on from there.

    Example: viseme jobs cancel 3f9a1c
    """
    from viseme import Client

    from server.cli.console import print_json, stderr, stdout, to_data

    with Client(server) as client:
        found = _found(client, name)
        client.operations.cancel(found)
        with stderr().status("Ending it ..."):
            operation = client.operations.wait(found, CANCEL_SECONDS)
    if json:
        print_json(to_data(operation))
    elif not operation.done:
        stdout().print(f"{found} will end soon.", markup=False)
    elif _state(operation) == "cancelled":
        stdout().print(f"Cancelled: {found}", markup=False)
    else:
        stdout().print(f"There is nothing to cancel: {found} is over.", markup=False)


@app.command("retry")
@guarded
def retry(name: JobName, server: ServerOption = DEFAULT_SERVER, json: JsonOption = False) -> None:
    """Do again what failed or was cancelled, as a new operation that goes on from what was done.

    Example: viseme jobs retry 3f9a1c
    """
    from viseme import Client

    from server.cli.console import print_json, say, stdout, to_data

    with Client(server) as client:
        operation = client.operations.retry(_found(client, name))
    if json:
        print_json(to_data(operation))
        return
    stdout().print(operation.name, markup=False)
    say(f"To see it: viseme jobs watch {_short(operation.name)}")


@app.command("logs")
@guarded
def logs(
    name: JobName,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines from the end.")] = 100,
    server: ServerOption = DEFAULT_SERVER,
    json: JsonOption = False,
) -> None:
    """Show what happened to an operation: when it was begun, interrupted, ended, and why.

    Example: viseme jobs logs 3f9a1c -n 20
    """
    from viseme import Client

    from server.cli.console import print_json, stdout, to_data

    with Client(server) as client:
        log = client.operations.log(_found(client, name), lines)
    if json:
        print_json({"lines": [to_data(line) for line in log]})
        return
    for line in log:
        stdout().print(f"{line.time.astimezone():%Y-%m-%d %H:%M:%S}  {line.text}", markup=False)


def _found(client: Client, name: str) -> str:
    """The name of the operation that is meant: by its name, or by the end of its id.

    Raises:
        CommandError: None is meant, or it is not clear which.
    """
    if "/" in name:
        return name
    names = [operation.name for operation in client.operations.list()]
    meant = [found for found in names if name and found.endswith(name)]
    if len(meant) == 1:
        return meant[0]
    if not meant:
        raise CommandError(
            f"There is no operation {name!r}.", fix="viseme jobs list", code=ExitCode.NOT_FOUND
        )
    raise CommandError(
        f"{len(meant)} operations end with {name!r}.",
        fix=f"Use a whole name: {meant[-1]}",
        code=ExitCode.USAGE,
    )


def _short(name: str) -> str:
    return name[-_SHORT:]


def _state(operation: Operation) -> str:
    if not operation.done:
        return "waiting" if operation.start_time is None else "running"
    if operation.error is None:
        return "done"
    return "cancelled" if operation.error.status == "CANCELLED" else "failed"


def _row(operation: Operation) -> tuple[str, ...]:
    from server.cli.console import wait_text

    left = operation.remaining
    return (
        _short(operation.name),
        operation.task,
        operation.avatar_name.removeprefix("avatars/"),
        _state(operation),
        f"{100 * operation.fraction:.0f} %",
        "-" if left is None or operation.done else wait_text(left),
        f"{operation.attempt} time{'' if operation.attempt == 1 else 's'}",
        f"{operation.create_time.astimezone():%Y-%m-%d %H:%M}",
    )
