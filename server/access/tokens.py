"""Tokens: made once, shown once, kept as hashes.

A token is `viseme_ID_SECRET`: the id finds its row, the secret is 256 random bits. Such a secret cannot be
guessed however fast guesses are, so one round of SHA-256 protects it at rest; slow hashes are for passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.access.caller import OPERATOR
from server.access.scopes import Scope
from server.errors import (
    FieldInvalid,
    FieldRequired,
    TokenExists,
    TokenExpired,
    TokenInvalid,
    TokenNotFound,
    TokenRevoked,
)
from server.media.spool import disk_full_as_error

_PREFIX: Final = "viseme"
_SECRET_BYTES: Final = 32
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
TENANT: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""What a tenant may be called: its name is that of a directory."""
_BUSY_SECONDS: Final = 5
_SCHEMA: Final = Path(__file__).with_name("tokens.sql")


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept. Times are seconds since the epoch.

    Attributes:
        id: Finds it; may be shown.
        name: What its maker calls it.
        tenant: Whose resources its holder sees.
        scopes: What it allows.
        created: When it was made.
        expires: When it ends, or None.
        revoked: When it was revoked, or None.
        last_used: When it was last presented, to the minute, or None.
    """

    id: str
    name: str
    tenant: str
    scopes: frozenset[Scope]
    created: float
    expires: float | None
    revoked: float | None
    last_used: float | None

    def usable(self, now: float) -> bool:
        """Whether it lets anybody in."""
        return self.revoked is None and (self.expires is None or now < self.expires)


class TokenStore:
    """The tokens of one home. Its methods block, `verify` for microseconds; any thread may call them.

    The command line changes the tokens while a server reads them: what is revoked is refused from then on.

    Args:
        path: The database; made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        with disk_full_as_error():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._path = path
        self._reader = self._connect()
        self._reader.execute("PRAGMA journal_mode = WAL")
        if not self._reader.execute("PRAGMA user_version").fetchone()[0]:
            self._reader.executescript(f"BEGIN IMMEDIATE;{_SCHEMA.read_text(encoding='utf-8')}COMMIT;")

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            self._reader.close()

    def create(
        self, name: str, scopes: Collection[Scope], *, tenant: str = OPERATOR, seconds: float | None = None
    ) -> tuple[Token, str]:
        """Makes a token.

        Args:
            name: What it is called.
            scopes: What it allows.
            tenant: Whose resources its holder sees; the operator's own when empty.
            seconds: How long it is good for; None for ever.

        Returns:
            The token, and its text, which nobody can find out later.

        Raises:
            FieldInvalid: A value is not allowed.
            FieldRequired: There is no scope.
            TokenExists: There is one of this name.
        """
        if not _NAME.fullmatch(name):
            raise FieldInvalid(
                "A token is called by lower-case letters, digits, hyphens and underscores, at most 63.",
                field="name",
            )
        if tenant and not TENANT.fullmatch(tenant):
            raise FieldInvalid(
                "A tenant is called by lower-case letters, digits and hyphens, at most 63.", field="tenant"
            )
        if not scopes:
            raise FieldRequired(f"A token needs a scope: {', '.join(Scope)}.", field="scope")
        if tenant and Scope.ADMIN in scopes:
            raise FieldInvalid(
                "The scope admin is for the operator of the server, who has no tenant.",
                fix="Leave out --tenant, or the scope admin.",
                field="scope",
            )
        identifier, secret = secrets.token_hex(6), secrets.token_urlsafe(_SECRET_BYTES)
        now = time.time()
        expires = None if seconds is None else now + seconds
        token = Token(identifier, name, tenant, frozenset(scopes), now, expires, None, None)
        row = (identifier, name, tenant, ",".join(sorted(scopes)), _digest(secret), now, expires)
        try:
            self._write(
                "INSERT INTO tokens (id, name, tenant, scopes, digest, created, expires)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        except sqlite3.IntegrityError:
            raise TokenExists(
                f"There is already a token {name}.",
                fix=f"Choose another name, or revoke it first: viseme tokens revoke {name}",
            ) from None
        return token, f"{_PREFIX}_{identifier}_{secret}"

    def verify(self, text: str) -> Token:
        """The token that a caller presents.

        Raises:
            TokenInvalid: It is none of ours.
            TokenExpired: It has ended.
            TokenRevoked: It was revoked.
        """
        prefix, _, rest = text.partition("_")
        identifier, _, secret = rest.partition("_")
        row = self._row("SELECT * FROM tokens WHERE id = ?", identifier) if prefix == _PREFIX else None
        # The same work is done for an id that does not exist.
        digest = _digest(secret)
        if not hmac.compare_digest(digest, bytes(len(digest)) if row is None else row["digest"]):
            raise TokenInvalid(fix="Ask the operator of the server for a token.")
        assert row is not None  # noqa: S101 (nothing hashes to zeros)
        token = _token(row)
        if token.revoked is not None:
            raise TokenRevoked(fix="Ask the operator of the server for another one.")
        if not token.usable(time.time()):
            raise TokenExpired(fix="Ask the operator of the server for another one.")
        return token

    def list(self) -> Sequence[Token]:
        """All tokens, in the order of their names."""
        with self._lock:
            return [_token(row) for row in self._reader.execute("SELECT * FROM tokens ORDER BY name")]

    def any_usable(self) -> bool:
        """Whether there is a token that lets anybody in."""
        return any(token.usable(time.time()) for token in self.list())

    def revoke(self, name: str) -> None:
        """Makes a token useless from now on, and frees its name.

        Raises:
            TokenNotFound: There is none of this name that was not revoked.
        """
        now = time.time()
        row = self._row("SELECT * FROM tokens WHERE name = ? AND revoked IS NULL", name)
        if row is None:
            raise TokenNotFound(f"There is no token {name}.", fix="viseme tokens list")
        self._write(
            "UPDATE tokens SET revoked = ?, name = name || '@' || id WHERE id = ?",
            (now, row["id"]),
        )

    def note_used(self, identifier: str, moment: float) -> None:
        """Keeps when a token was last presented."""
        self._write("UPDATE tokens SET last_used = ? WHERE id = ?", (moment, identifier))

    def _row(self, query: str, value: str) -> sqlite3.Row | None:
        with self._lock:
            row: sqlite3.Row | None = self._reader.execute(query, (value,)).fetchone()
        return row

    def _write(self, query: str, values: tuple[object, ...]) -> None:
        # On a connection of its own: who only reads does not wait for the disk.
        with disk_full_as_error(), closing(self._connect()) as connection:
            connection.execute(query, values)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        return connection


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _token(row: sqlite3.Row) -> Token:
    return Token(
        id=row["id"],
        name=row["name"],
        tenant=row["tenant"],
        scopes=frozenset(Scope(scope) for scope in row["scopes"].split(",")),
        created=row["created"],
        expires=row["expires"],
        revoked=row["revoked"],
        last_used=row["last_used"],
    )
