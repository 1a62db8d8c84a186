"""The `viseme` command: `python -m server.cli.main`, or the script that installing the project makes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from server.cli.commands import (
    assets,
    avatars,
    demo,
    doctor,
    gpus,
    hosts,
    jobs,
    llm,
    render,
    say,
    serve,
    tokens,
    version,
)
from server.cli.failures import EPILOG

app = typer.Typer(
    name="viseme",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("demo")(demo.demo)
app.command("serve")(serve.serve)
app.command("say")(say.say)
app.command("render")(render.render)
app.add_typer(avatars.app, name="avatars")
app.add_typer(jobs.app, name="jobs")
app.add_typer(hosts.app, name="hosts")
app.add_typer(assets.app, name="assets")
app.add_typer(tokens.app, name="tokens")
app.add_typer(llm.app, name="llm")
app.command("gpus")(gpus.gpus)
app.command("leases")(gpus.leases)
app.command("drain")(gpus.drain)
app.command("top")(gpus.top)
app.command("doctor")(doctor.doctor)
app.command("version")(version.version)


def _show_version(wanted: bool) -> None:
    if wanted:
        version.version()
        raise typer.Exit


@app.callback()
def viseme(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="VISEME_TOKEN_FILE", metavar="FILE", help="Token for the server, in a file of yours alone."
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            envvar="VISEME_CA_FILE", metavar="FILE", help="Authority of the server's certificate, PEM."
        ),
    ] = None,
) -> None:
    """Talking avatars on your own machine: send a voice note, get a video that answers.

    Begin with [bold]viseme demo[/]. If it does not work, ask [bold]viseme doctor[/].
    """
    # The client library looks there, whichever command it works for.
    for name, file in (("VISEME_TOKEN_FILE", token_file), ("VISEME_CA_FILE", ca_file)):
        if file is not None:
            os.environ[name] = str(file)


def main() -> None:
    """Runs the command line and ends the process."""
    # gRPC writes lines of its own about ports that are taken and servers that are gone; we say it better.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()


if __name__ == "__main__":
    main()
