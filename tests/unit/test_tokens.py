"""Tokens: what is kept, what is refused, what is never shown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.access import tokens as tokens_module
from server.access.scopes import Scope
from server.access.tokens import TokenStore
from server.errors import (
    FieldInvalid,
    FieldRequired,
    TokenExists,
    TokenExpired,
    TokenInvalid,
    TokenNotFound,
    TokenRevoked,
    VisemeError,
)

TALK = frozenset({Scope.TALK})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "tokens.db"


@pytest.fixture
def store(path: Path) -> TokenStore:
    return TokenStore(path)


def test_a_token_is_recognised_until_it_is_revoked(store: TokenStore, path: Path) -> None:
    made, text = store.create("ada", {Scope.TALK, Scope.TRAIN}, tenant="acme")
    found = store.verify(text)
    assert found == made
    assert (found.tenant, found.scopes) == ("acme", {Scope.TALK, Scope.TRAIN})
    # As the command line does, beside a server that runs.
    other = TokenStore(path)
    other.revoke("ada")
    with pytest.raises(TokenRevoked):
        store.verify(text)
    again, fresh = store.create("ada", TALK)
    assert again.id != made.id and store.verify(fresh).name == "ada"
    with pytest.raises(TokenRevoked):
        store.verify(text)
    other.close()


def test_secrets_are_kept_nowhere(store: TokenStore, path: Path) -> None:
    _, text = store.create("ada", TALK)
    secret = text.split("_", 2)[2]
    assert len(secret) == 43  # 256 bits in base64
    store.close()
    for file in path.parent.iterdir():
        assert secret.encode() not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0


def test_expiry(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(tokens_module.time, "time", lambda: now)
    _, text = store.create("ada", TALK, seconds=60)
    assert store.any_usable()
    now += 59.9
    store.verify(text)
    now += 0.2
    with pytest.raises(TokenExpired):
        store.verify(text)
    assert not store.any_usable()


def test_last_used(store: TokenStore) -> None:
    made, _ = store.create("ada", TALK)
    store.note_used(made.id, 77.0)
    assert [token.last_used for token in store.list()] == [77.0]


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=100))
def test_other_texts_are_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    store = TokenStore(tmp_path_factory.mktemp("tokens") / "tokens.db")
    made, good = store.create("ada", TALK)
    for tried in (text, f"viseme_{made.id}_{text}", good[:-1], good + "A", good.replace("viseme", "viseme_")):
        if tried != good:
            with pytest.raises(TokenInvalid):
                store.verify(tried)
    store.close()


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"name": "Ada"}, FieldInvalid),
        ({"name": ""}, FieldInvalid),
        ({"scopes": ()}, FieldRequired),
        ({"tenant": "../acme"}, FieldInvalid),
        ({"tenant": "Acme"}, FieldInvalid),
        ({"tenant": "acme", "scopes": {Scope.ADMIN}}, FieldInvalid),
        ({"name": "taken"}, TokenExists),
    ],
)
def test_what_cannot_be_made(store: TokenStore, values: dict[str, object], error: type[VisemeError]) -> None:
    store.create("taken", TALK)
    wanted: dict[str, object] = {"name": "ada", "scopes": TALK, **values}
    with pytest.raises(error):
        store.create(**wanted)  # type: ignore[arg-type]
    assert len(store.list()) == 1


def test_revoking_what_is_not_there(store: TokenStore) -> None:
    with pytest.raises(TokenNotFound):
        store.revoke("nobody")
