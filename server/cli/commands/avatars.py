"""`viseme avatars`: the avatars of a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.commands import making
from server.cli.failures import CommandError, ExitCode, guarded
from server.cli.settings import DEFAULT_SERVER, JsonOption, ServerOption

app = typer.Typer(no_args_is_help=True, help="Avatars: make, list, show, import, export and delete them.")
app.command("create")(making.create)
app.command("train")(making.train)
app.command("watch")(making.watch)
app.command("preview")(making.preview)
app.command("cancel")(making.cancel)

AvatarName = Annotated[str, typer.Argument(metavar="NAME", help="An avatar, such as demo or avatars/demo.")]


@app.command("list")
@guarded
def list_avatars(server: ServerOption = DEFAULT_SERVER, json: JsonOption = False) -> None:
    """List the avatars."""
    from viseme import Client

    from server.cli.console import print_json, print_table, size_text, to_data

    with Client(server) as client:
        avatars = client.avatars.list()
    if json:
        print_json({"avatars": [to_data(avatar) for avatar in avatars]})
        return
    rows = [
        (
            avatar.name,
            avatar.state.lower(),
            avatar.display_name,
            f"{avatar.width}x{avatar.height}",
            size_text(avatar.size_bytes) if avatar.size_bytes else "-",
            "synthetic" if avatar.synthetic else "real",
            avatar.license or "-",
        )
        for avatar in avatars
    ]
    columns = ("NAME", "STATE", "CALLED", "PICTURE", "SIZE", "PERSON", "LICENCE")
    print_table(columns, rows, "There are no avatars.")


@app.command("show")
@guarded
def show_avatar(
    name: AvatarName,
    thumbnail: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write its small picture (PNG).")
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    json: JsonOption = False,
) -> None:
    """Show what is known of an avatar.

    Example: viseme avatars show demo --thumbnail demo.png
    """
    from viseme import Client

    from server.cli.console import print_json, print_table, to_data
    from server.cli.files import OutputFile
    from server.cli.names import avatar_name

    with Client(server) as client:
        avatar = client.avatars.get(avatar_name(name))
    if thumbnail is not None:
        if not avatar.thumbnail:
            raise CommandError(f"{avatar.name} has no picture.")
        with OutputFile(thumbnail) as file:
            file.write(avatar.thumbnail)
            file.commit()
    facts = to_data(avatar)
    if json:
        print_json(facts)
        return
    facts["state"] = avatar.state.lower()
    facts["findings"] = "\n".join(f"{finding.message} {finding.fix}" for finding in avatar.findings)
    print_table(("", ""), [(key.replace("_", " "), str(value)) for key, value in facts.items()], "")


@app.command("import")
@guarded
def import_avatar(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="An avatar bundle, a .zip file.")],
    name: Annotated[
        str, typer.Option("--name", metavar="ID", help="Name of the new avatar.", show_default="as the file")
    ] = "",
    server: ServerOption = DEFAULT_SERVER,
    json: JsonOption = False,
) -> None:
    """Store an avatar bundle under a new name.

    Example: viseme avatars import ada.zip --name ada
    """
    from viseme import Client

    from server.cli.console import print_json, stderr, stdout, to_data

    if not bundle.is_file():
        raise CommandError(f"There is no file {bundle}.", code=ExitCode.NOT_FOUND)
    identifier = (name or bundle.stem.lower()).removeprefix("avatars/")
    with Client(server) as client, stderr().status(f"Sending {bundle.name} ..."):
        avatar = client.avatars.import_(identifier, bundle)
    if json:
        print_json(to_data(avatar))
    else:
        stdout().print(
            f"Stored as {avatar.name}. Try: viseme say note.ogg --avatar {avatar.name}", markup=False
        )


@app.command("export")
@guarded
def export_avatar(
    name: AvatarName,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where the .zip goes.", show_default="NAME.zip"),
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
) -> None:
    """Write an avatar to a bundle that any viseme can import.

    Example: viseme avatars export demo -o demo.zip
    """
    from viseme import Client

    from server.cli.console import size_text, stderr, stdout
    from server.cli.names import avatar_name

    full = avatar_name(name)
    target = output or Path(full.rpartition("/")[2] + ".zip")
    with Client(server) as client, stderr().status(f"Fetching {full} ..."):
        try:
            client.avatars.export(full, target)
        except OSError as error:
            raise CommandError(
                f"{target} cannot be written: {error.strerror}.", fix="Name another place with -o."
            ) from error
    stdout().print(f"Written: {target} ({size_text(target.stat().st_size)})", markup=False)


@app.command("delete")
@guarded
def delete_avatar(
    name: AvatarName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    server: ServerOption = DEFAULT_SERVER,
) -> None:
    """Delete an avatar, its recording and everything derived from it; work on it is ended first.

    Example: viseme avatars delete ada
    """
    from viseme import Client

    from server.cli.console import stdout
    from server.cli.names import avatar_name

    full = avatar_name(name)
    if not yes and not typer.confirm(f"Delete {full} for good?", err=True):
        raise CommandError("Nothing was deleted.")
    with Client(server) as client:
        client.avatars.delete(full)
    stdout().print(f"Deleted: {full}", markup=False)
