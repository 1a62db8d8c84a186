"""`viseme gpus`, `viseme leases`, `viseme drain`, `viseme top`: the devices, and who has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.failures import guarded
from server.cli.settings import DEFAULT_SERVER, JsonOption, ServerOption

if TYPE_CHECKING:
    from rich.console import RenderableType
    from viseme import Client

SecondsOption = Annotated[
    float, typer.Option("--every", min=0.1, metavar="SECONDS", help="How long between two looks.")
]
TimesOption = Annotated[
    int | None, typer.Option("--times", min=1, metavar="N", help="Stop after so many looks.")
]


@guarded
def gpus(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
    every: SecondsOption = 2.0,
    times: TimesOption = None,
    server: ServerOption = DEFAULT_SERVER,
    json: JsonOption = False,
) -> None:
    """Show the GPUs: how they are, what is free, and what is reserved for whom.

    RESERVED is the memory that hosts and trainings of this server hold; OTHERS is what programs use that
    this server did not start. Without a GPU, models run on the processor, under the same rules.

    Example: viseme gpus --watch
    """
    from viseme import Client

    from server.cli.console import print_json, print_table, say, to_data
    from server.cli.device_view import GPU_COLUMNS, gpu_row
    from server.cli.screen import keep_drawing

    with Client(server) as client:
        if watch:
            keep_drawing(lambda: _gpu_json(client) if json else _gpu_table(client), every, times)
            return
        found, problem = client.admin.gpus()
    if json:
        print_json({"gpus": [to_data(gpu) for gpu in found], "problem": problem})
        return
    print_table(GPU_COLUMNS, [gpu_row(gpu) for gpu in found], "This server has no device.")
    for gpu in found:
        if gpu.problem:
            say(f"GPU {gpu.index} {gpu.problem}.")
    if problem:
        say(problem)


@guarded
def leases(server: ServerOption = DEFAULT_SERVER, json: JsonOption = False) -> None:
    """Show who holds a GPU, who waits for one, and why.

    Example: viseme leases
    """
    from viseme import Client

    from server.cli.console import print_json, print_table, to_data
    from server.cli.device_view import LEASE_COLUMNS, lease_row

    with Client(server) as client:
        found = client.admin.leases()
        devices = client.admin.gpus()[0] if found else []
    if json:
        print_json({"leases": [to_data(lease) for lease in found]})
    else:
        rows = [lease_row(lease, devices) for lease in found]
        print_table(LEASE_COLUMNS, rows, "Nobody holds a device, and nobody waits for one.")


@guarded
def drain(
    device: Annotated[
        str | None,
        typer.Argument(metavar="[GPU]", help="Its index, UUID or name, or cpu; all of them when left out."),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Use it again.")] = False,
    server: ServerOption = DEFAULT_SERVER,
    json: JsonOption = False,
) -> None:
    """Empty a GPU: nothing new is placed on it, hosts leave after their calls, trainings at a checkpoint.

    What was interrupted goes on elsewhere, or here once you say --undo. It lasts until the server stops.

    Example: viseme drain 0
    """
    from viseme import Client

    from server.cli.console import print_json, stdout, to_data

    with Client(server) as client:
        names = [f"gpus/{device}"] if device else [gpu.name for gpu in client.admin.gpus()[0]]
        done = [client.admin.drain(name, undo) for name in names]
    if json:
        print_json({"gpus": [to_data(gpu) for gpu in done]})
        return
    for gpu in done:
        state = "is in use again" if undo else "takes nothing new"
        held = "" if undo or not gpu.reserved_bytes else "; its holders were asked to leave: viseme leases"
        stdout().print(f"{gpu.name.removeprefix('gpus/')} {state}{held}.", markup=False)


@guarded
def top(every: SecondsOption = 2.0, times: TimesOption = None, server: ServerOption = DEFAULT_SERVER) -> None:
    """Watch the whole server: GPUs, who has them, hosts, operations. Ctrl-C ends it.

    Elsewhere than on a terminal it writes one picture below the other.

    Example: viseme top --times 1
    """
    from viseme import Client

    from server.cli.screen import keep_drawing

    with Client(server) as client:
        keep_drawing(lambda: _overview(client), every, times)


def _gpu_table(client: Client) -> RenderableType:
    from server.cli.console import make_table
    from server.cli.device_view import GPU_COLUMNS, gpu_row

    return make_table(GPU_COLUMNS, [gpu_row(gpu) for gpu in client.admin.gpus()[0]])


def _gpu_json(client: Client) -> RenderableType:
    import json

    from rich.text import Text

    from server.cli.console import to_data

    return Text(json.dumps({"gpus": [to_data(gpu) for gpu in client.admin.gpus()[0]]}))


def _overview(client: Client) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from server.cli import device_view as view
    from server.cli.console import make_table, memory_text

    status = client.admin.status()
    devices, _ = client.admin.gpus()
    operations = [operation for operation in client.operations.list() if not operation.done]
    running = [host for host in client.admin.hosts() if host.state != "STOPPED"]
    parts: list[RenderableType] = [
        Text(
            f"viseme {status.version}: {status.active_requests} requests under way, "
            f"{memory_text(status.memory_bytes)} of memory"
        )
    ]
    for columns, rows in (
        (view.GPU_COLUMNS, [view.gpu_row(gpu) for gpu in devices]),
        (view.LEASE_COLUMNS, [view.lease_row(lease, devices) for lease in client.admin.leases()]),
        (view.OPERATION_COLUMNS, [view.operation_row(operation) for operation in operations]),
        (view.HOST_COLUMNS, [view.host_row(host) for host in running]),
    ):
        if rows:
            parts += [Text(), make_table(columns, rows)]
    return Group(*parts)
