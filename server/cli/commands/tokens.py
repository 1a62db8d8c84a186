"""`viseme tokens`: who may call a server that other machines can reach. For its operator, on its machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from server.cli.failures import CommandError, ExitCode, guarded
from server.cli.settings import ConfigOption, JsonOption

if TYPE_CHECKING:
    from pathlib import Path

    from server.access.tokens import Token, TokenStore

app = typer.Typer(no_args_is_help=True, help="Tokens: who may call this server, for what and until when.")

_SECONDS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SCOPES: Final = ("talk", "render", "train", "admin")

TokenName = Annotated[str, typer.Argument(metavar="NAME", help="What the token is called.")]


@app.command("create")
@guarded
def create_token(
    name: TokenName,
    scope: Annotated[
        str, typer.Option(metavar="SCOPES", help="What it allows: talk, render, train, admin; with commas.")
    ],
    tenant: Annotated[
        str,
        typer.Option(metavar="TENANT", help="Whose avatars its holder sees.", show_default="the operator's"),
    ] = "",
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it ends, such as 12h or 30d.", show_default="never"),
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Make a token and show it, this once.

    Only a hash of it is kept. Whoever has it may call: hand it over as you would a password.

    Example: viseme tokens create ada --scope talk,render --tenant acme --expires 30d > token
    """
    from server.access.scopes import Scope
    from server.cli.console import print_json, say, stdout

    scopes = {part.strip() for part in scope.split(",") if part.strip()}
    if unknown := sorted(scopes - set(_SCOPES)):
        raise CommandError(
            f"There is no scope {unknown[0]!r}.", fix=f"Use {', '.join(_SCOPES)}.", code=ExitCode.USAGE
        )
    seconds = None if expires is None else _duration(expires)
    store = _store(config)
    try:
        token, text = store.create(name, frozenset(map(Scope, scopes)), tenant=tenant, seconds=seconds)
    finally:
        store.close()
    if json:
        print_json({**_facts(token), "secret": text})
        return
    say("This is shown only now. Keep it in a file that only you can read (chmod 600):")
    stdout().print(text, markup=False)


@app.command("list")
@guarded
def list_tokens(config: ConfigOption = None, json: JsonOption = False) -> None:
    """List the tokens, without their secrets."""
    from server.cli.console import print_json, print_table

    store = _store(config)
    try:
        tokens = store.list()
    finally:
        store.close()
    if json:
        print_json({"tokens": [_facts(token) for token in tokens]})
        return
    rows = [
        (
            facts["name"],
            facts["state"],
            facts["tenant"] or "-",
            ",".join(facts["scopes"]),
            facts["created"],
            facts["expires"] or "never",
            facts["last_used"] or "never",
        )
        for facts in map(_facts, tokens)
    ]
    columns = ("NAME", "STATE", "TENANT", "SCOPES", "CREATED", "EXPIRES", "LAST USED")
    print_table(columns, rows, "There are no tokens.")


@app.command("revoke")
@guarded
def revoke_token(name: TokenName, config: ConfigOption = None) -> None:
    """Make a token useless from now on; a server that runs refuses its next call.

    Example: viseme tokens revoke ada
    """
    from server.cli.console import stdout

    store = _store(config)
    try:
        store.revoke(name)
    finally:
        store.close()
    stdout().print(f"Revoked: {name}", markup=False)


def _store(config: Path | None) -> TokenStore:
    from server.access.tokens import TokenStore
    from server.cli.settings import check_home, read_settings

    settings = read_settings(config)
    check_home(settings)
    return TokenStore(settings.home / "store" / "tokens.db")


def _duration(text: str) -> float:
    """Seconds of a time as people write it.

    Raises:
        CommandError: It is none.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if match is None:
        raise CommandError(
            f"{text!r} is not a time.", fix="Write it as 90m, 12h, 30d or 8w.", code=ExitCode.USAGE
        )
    return float(int(match[1]) * _SECONDS[match[2]])


def _facts(token: Token) -> dict[str, Any]:
    import time

    state = "revoked" if token.revoked is not None else "ok" if token.usable(time.time()) else "expired"
    return {
        "name": token.name.partition("@")[0],
        "id": token.id,
        "state": state,
        "tenant": token.tenant,
        "scopes": sorted(token.scopes),
        "created": _moment(token.created),
        "expires": _moment(token.expires),
        "last_used": _moment(token.last_used),
    }


def _moment(seconds: float | None) -> str | None:
    from datetime import UTC, datetime

    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="minutes")
