"""How clients reach a server: plain on the same machine, encrypted elsewhere, with a token where needed.

What is not given is taken from the environment, so that it appears in no command line: `VISEME_TOKEN` or
`VISEME_TOKEN_FILE`, `VISEME_CA_FILE`, `VISEME_CERT_FILE` and `VISEME_KEY_FILE`.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from viseme._errors import VisemeError


@dataclass(frozen=True)
class Connection:
    """What a connection needs. An empty text means none, None what the environment says.

    Attributes:
        token: Who the caller is, as `viseme tokens create` shows it.
        token_file: A file with the token, which nobody else may read.
        ca_file: PEM of the authority that signed the server's certificate; the system's when there is none.
        cert_file: PEM of the caller's own certificate, for servers that ask for one.
        key_file: PEM of its key.
    """

    token: str | None = None
    token_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def channel(self, address: str, options: Any) -> Any:
        """A channel for blocking calls.

        Raises:
            VisemeError: A file cannot be used.
            OSError: A file cannot be read.
        """
        credentials = self._credentials(address)
        channel = (
            grpc.insecure_channel(address, options=options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options=options)
        )
        return self._with_token(channel)

    def async_channel(self, address: str, options: Any) -> Any:
        """A channel of grpc.aio.

        Raises:
            VisemeError: A file cannot be used.
            OSError: A file cannot be read.
        """
        credentials = self._credentials(address)
        channel = (
            grpc.aio.insecure_channel(address, options=options)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=options)
        )
        return self._with_token(channel)

    def _credentials(self, address: str) -> grpc.ChannelCredentials | None:
        ca, certificate, key = (
            _or_environment(value, name)
            for value, name in (
                (self.ca_file, "VISEME_CA_FILE"),
                (self.cert_file, "VISEME_CERT_FILE"),
                (self.key_file, "VISEME_KEY_FILE"),
            )
        )
        # Servers refuse to be reached from other machines without encryption, and a token is not sent so.
        if not ca and _is_loopback(address):
            return None
        read = [Path(name).read_bytes() if name else None for name in (ca, key, certificate)]
        return grpc.ssl_channel_credentials(*read)

    def _with_token(self, channel: Any) -> Any:
        token = self.token
        if token is None and self.token_file is None:
            token = os.environ.get("VISEME_TOKEN", "").strip() or None
        if token is None:
            name = _or_environment(self.token_file, "VISEME_TOKEN_FILE")
            token = _read_private(Path(name)) if name else ""
        return WithMetadata(channel, (("authorization", "Bearer " + token),)) if token else channel


class WithMetadata:
    """A channel, blocking or not, that adds metadata to every call.

    Interceptors would do the same, but those of grpc.aio change how calls end.
    """

    def __init__(self, channel: Any, metadata: Any) -> None:
        self._channel = channel
        self._metadata = tuple(metadata)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._channel, name)
        if name not in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            return found

        def make(*args: Any, **kwargs: Any) -> Any:
            return self._adding(found(*args, **kwargs))

        return make

    def _adding(self, inner: Any) -> Any:
        def call(*args: Any, metadata: Any = None, **kwargs: Any) -> Any:
            return inner(*args, metadata=(*self._metadata, *(metadata or ())), **kwargs)

        return call


def _or_environment(value: str | None, name: str) -> str:
    return os.environ.get(name, "") if value is None else value


def _read_private(path: Path) -> str:
    """The token in a file.

    Raises:
        VisemeError: Others may read the file, or there is no token in it.
    """
    status = path.stat()
    if os.name == "posix" and status.st_mode & 0o077:
        raise VisemeError(
            f"Others can read the token in {path}.",
            reason="TOKEN_FILE_OPEN",
            fix=f"chmod 600 {path}",
            status=grpc.StatusCode.FAILED_PRECONDITION.name,
        )
    token = path.read_text(encoding="utf-8").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise VisemeError(
            f"There is no token in {path}.",
            reason="TOKEN_INVALID",
            fix="Write what `viseme tokens create` has shown into it.",
            status=grpc.StatusCode.UNAUTHENTICATED.name,
        )
    return token


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host in ("localhost", "") or address.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
