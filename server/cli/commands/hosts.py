"""`viseme hosts`: the model hosts."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.failures import guarded
from server.cli.settings import (
    DEFAULT_SERVER,
    ConfigOption,
    JsonOption,
    ServerOption,
    check_home,
    read_settings,
)

app = typer.Typer(
    no_args_is_help=True, help="The model hosts: how they are, installing, restarting, their logs, pruning."
)


def _complete_host(incomplete: str) -> list[str]:
    """Names for the shell's completion; nothing when they cannot be read."""
    from server.errors import VisemeError
    from server.hosts.manifest import ManifestError, load_manifests

    try:
        return [name for name in load_manifests(read_settings(None).manifests) if name.startswith(incomplete)]
    except (VisemeError, ManifestError):
        return []


HostName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A host, such as whisper or hosts/whisper.", autocompletion=_complete_host
    ),
]


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
        typer.Argument(
            metavar="[NAME]...",
            help="Hosts; those a reply needs when none is named.",
            autocompletion=_complete_host,
        ),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Build the environments of hosts, and install the model files they need.

    Each host lives in an environment of its own, built from exact versions with hashes. Needs no running
    server.

    Example: viseme hosts install whisper
    """
    from server.cli.console import print_json, say
    from server.cli.preparation import Preparation
    from server.cli.progress import ProgressDisplay

    settings = read_settings(config)
    check_home(settings)
    preparation = Preparation(settings)
    hosts = preparation.select(names) if names else preparation.serving_hosts()
    with ProgressDisplay() as progress:
        preparation.complete(preparation.missing(hosts), progress)
    if json:
        print_json({"hosts": [preparation.installed(host) for host in hosts]})
        return
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
    json: JsonOption = False,
) -> None:
    """Show the end of a host's log.

    Example: viseme hosts logs talking_gaussian -n 20
    """
    import sys

    from viseme import Client

    from server.cli.console import print_json
    from server.cli.names import host_name

    with Client(server) as client:
        text = client.admin.host_log(host_name(name), lines)
    if json:
        print_json({"name": host_name(name), "lines": text.splitlines()})
        return
    sys.stdout.write(text if text.endswith("\n") or not text else text + "\n")


@app.command("prune")
@guarded
def prune_hosts(
    days: Annotated[float, typer.Option(min=0, help="Old logs stay for so many days.")] = 14,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Remove environments that no host needs any more, half-built ones, and old logs.

    What a running host uses stays, and so does what is being built. Needs no running server.

    Example: viseme hosts prune --dry-run
    """
    from server.cli.console import print_json, print_table, say, size_text
    from server.cli.failures import ExitCode
    from server.cli.preparation import Preparation
    from server.cli.settings import shown_path

    pruned = Preparation(read_settings(config)).prune(days, dry_run)
    if json:
        described = {
            part: [
                {"path": str(found.path), "kind": found.kind.value, "why": found.why}
                for found in getattr(pruned, part)
            ]
            for part in ("removed", "kept")
        }
        print_json({**described, "freed_bytes": pruned.freed_bytes, "dry_run": dry_run})
    else:
        rows = [(shown_path(found.path), found.kind.value) for found in pruned.removed]
        verb = "WOULD BE REMOVED" if dry_run else "REMOVED"
        print_table((verb, "WHAT"), rows, "There is nothing that nobody needs.")
        for found in pruned.kept:
            say(f"Kept {shown_path(found.path)}: {found.why}")
        say(f"{size_text(pruned.freed_bytes)} {'would be freed' if dry_run else 'freed'}.")
    if any("cannot be removed" in found.why for found in pruned.kept):
        raise typer.Exit(ExitCode.FAILED)
