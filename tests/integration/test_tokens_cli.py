"""`viseme tokens`, and commands that present one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.access.scopes import Scope
from server.access.tokens import TokenStore
from tests.integration.commands import Done, started
from tests.integration.conftest import StartWorld


async def viseme(place: Path, *arguments: str, **variables: str) -> Done:
    async with started(*arguments, cwd=place, **variables) as process:
        out, err = await process.communicate()
        assert b"Traceback" not in err
        return Done(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path / "home")


async def test_a_token_is_made_shown_once_and_revoked(place: Path, home: str) -> None:
    made = await viseme(
        place, "tokens", "create", "ada", "--scope", "talk,render", "--tenant", "acme", "--expires", "30d",
        VISEME_HOME=home,
    )  # fmt: skip
    assert made.code == 0 and "only now" in made.err
    text = made.out.strip()
    assert text.startswith("viseme_") and text not in made.err
    store = TokenStore(Path(home) / "store" / "tokens.db")
    token = store.verify(text)
    assert (token.tenant, token.scopes) == ("acme", {Scope.TALK, Scope.RENDER})
    assert token.expires is not None and abs(token.expires - token.created - 30 * 86400) < 1
    listed = await viseme(place, "tokens", "list", "--json", VISEME_HOME=home)
    (facts,) = json.loads(listed.out)["tokens"]
    assert (facts["name"], facts["state"], facts["tenant"]) == ("ada", "ok", "acme")
    assert text.split("_", 2)[2] not in listed.out
    assert (await viseme(place, "tokens", "revoke", "ada", VISEME_HOME=home)).out == "Revoked: ada\n"
    assert not store.any_usable()
    store.close()
    again = await viseme(place, "tokens", "revoke", "ada", VISEME_HOME=home)
    assert again.code == 4 and "There is no token ada" in again.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--scope", "fly"), 2, "There is no scope 'fly'"),
        (("--scope", "talk", "--expires", "soon"), 2, "'soon' is not a time"),
        (("--scope", "admin", "--tenant", "acme"), 3, "for the operator"),
        (("--scope", ","), 3, "needs a scope"),
    ],
)
async def test_what_cannot_be_made(
    place: Path, home: str, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = await viseme(place, "tokens", "create", "ada", *arguments, VISEME_HOME=home)
    assert done.code == code and words in done.err and not done.out


async def test_commands_present_the_token_in_a_file(start_world: StartWorld, place: Path, home: str) -> None:
    store = TokenStore(Path(home) / "store" / "tokens.db")
    _, text = store.create("ada", frozenset({Scope.TALK}))
    store.close()
    world = await start_world(access={"tokens": True})
    file = place / "token"
    file.write_text(text)
    file.chmod(0o600)
    listing = ("avatars", "list", "--server", world.address)
    assert "avatars/demo" in (await viseme(place, "--token-file", "token", *listing)).out
    assert "avatars/demo" in (await viseme(place, *listing, VISEME_TOKEN_FILE=str(file))).out
    without = await viseme(place, *listing)
    assert without.code == 3 and "asks for a token" in without.err and "VISEME_TOKEN_FILE" in without.err
    refused = await viseme(place, "--token-file", "token", "hosts", "list", "--server", world.address)
    assert refused.code == 3 and "needs the scope admin" in refused.err
    file.chmod(0o640)
    open_file = await viseme(place, "--token-file", "token", *listing)
    assert open_file.code == 6 and "chmod 600" in open_file.err
