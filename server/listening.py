"""The gRPC server's socket and its patience with those who connect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc
import grpc.aio

from server.access import exposure
from server.config import Settings
from server.errors import PortInUse

_HANDSHAKE_MILLISECONDS: Final = 10_000
_IDLE_MILLISECONDS: Final = 10 * 60_000


def new_server(settings: Settings, interceptors: Sequence[Any]) -> grpc.aio.Server:
    """A server that listens nowhere yet."""
    return grpc.aio.server(
        interceptors=list(interceptors),
        options=[
            # Without this a second server on the port would silently share its connections.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", settings.limits.max_message_bytes),
            ("grpc.max_metadata_size", 16 * 1024),
            ("grpc.max_concurrent_streams", 128),
            # Whoever connects and says nothing, or nothing more, is let go.
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MILLISECONDS),
            ("grpc.max_connection_idle_ms", _IDLE_MILLISECONDS),
            # A caller that vanished without a word is noticed.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ],
    )


def bind(server: grpc.aio.Server, settings: Settings) -> str:
    """Listens where the settings say.

    Returns:
        `HOST:PORT`; the port is the one that was found when the settings say 0.

    Raises:
        CertificateInvalid: The certificate cannot be used.
        PortInUse: Another program listens there.
    """
    host, _, port = settings.listen.rpartition(":")
    credentials = exposure.credentials(settings.tls)
    try:
        bound = (
            server.add_insecure_port(settings.listen)
            if credentials is None
            else server.add_secure_port(settings.listen, credentials)
        )
    except RuntimeError:
        bound = 0
    if not bound:
        raise PortInUse(
            f"Port {port} is in use by another program.",
            fix="Stop that program, or choose another port: viseme serve --listen 127.0.0.1:PORT",
            port=port,
        )
    return f"{host}:{bound}"
