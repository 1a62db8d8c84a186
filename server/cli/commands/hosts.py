"""`viseme hosts`: the model hosts."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.failures import guarded
from server.cli.settings import DEFAULT_SERVER, ConfigOption, JsonOption, ServerOption

app = typer.Typer(
    no_args_is_help=True, help="The model hosts: how they are, installing, restarting, their logs."
)

HostName = Annotated[str, typer.Argument(metavar="NAME", help="A host, such as whisper or hosts/whisper.")]


@app.command("list")
@guarded
def list_hosts(server: ServerOption = DEFAULT_SERVER, json: JsonOption = False) -> None:
    """List the hosts of a running server and how they are."""
    from viseme import Client

    from server.cli.console import print_json, print_table, say, size_text, to_data

    with Client(server) as client:
        hosts = client.admin.hosts()
    if json:
        print_json({"hosts": [to_data(host) for host in hosts]})
        return
    rows = [
        (
            host.name.removeprefix("hosts/"),
            host.state.lower().replace("_", " "),
            ", ".join(host.capabilities),
            size_text(host.memory_bytes) if host.memory_bytes else "-",
            str(host.restart_count),
            ", ".join(host.models) or "-",
        )
        for host in hosts
    ]
    print_table(("NAME", "STATE", "DOES", "MEMORY", "RESTARTS", "MODELS"), rows, "This server has no hosts.")
    for host in hosts:
        if host.problem:
            say(f"{host.name}: {host.problem}" + (f" Try: {host.fix}" if host.fix else ""))


@app.command("install")
@guarded
def install_hosts(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Hosts; those a reply needs when none is named."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Build the environments of hosts, and install the model files they need.

    Each host lives in an environment of its own, built from exact versions with hashes. Needs no running
    server.

    Example: viseme hosts install whisper
    """
    from server.cli.console import say
    from server.cli.preparation import Preparation
    from server.cli.progress import ProgressDisplay
    from server.cli.settings import check_home, read_settings

    settings = read_settings(config)
    check_home(settings)
    preparation = Preparation(settings)
    hosts = preparation.select(names) if names else preparation.serving_hosts()
    with ProgressDisplay() as progress:
        preparation.complete(preparation.missing(hosts), progress)
    say(f"Ready: {', '.join(host.name for host in hosts)}.")


@app.command("restart")
@guarded
def restart_host(
    name: HostName,
    grace: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long running calls may take to end.")
    ] = 10.0,
    server: ServerOption = DEFAULT_SERVER,
    json: JsonOption = False,
) -> None:
    """Stop a host after its running calls and start it again.

    Example: viseme hosts restart kokoro
    """
    from viseme import Client

    from server.cli.console import print_json, stderr, stdout, to_data
    from server.cli.names import host_name

    with Client(server) as client, stderr().status(f"Restarting {name} ..."):
        host = client.admin.restart_host(host_name(name), grace)
    if json:
        print_json(to_data(host))
    else:
        stdout().print(f"{host.name} is {host.state.lower().replace('_', ' ')}.", markup=False)


@app.command("logs")
@guarded
def host_logs(
    name: HostName,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines from the end.")] = 100,
    server: ServerOption = DEFAULT_SERVER,
) -> None:
    """Show the end of a host's log.

    Example: viseme hosts logs talking_gaussian -n 20
    """
    import sys

    from viseme import Client

    from server.cli.names import host_name

    with Client(server) as client:
        text = client.admin.host_log(host_name(name), lines)
    sys.stdout.write(text if text.endswith("\n") or not text else text + "\n")
