"""Where a host listens: a unix socket on the server's own machine, TCP with mutual TLS on any other."""

from __future__ import annotations

import grpc

from model_hosts.sdk.arguments import Arguments

KEY_FILE = "host.key"
CERTIFICATE_FILE = "host.crt"
CALLER_FILE = "caller.crt"


def open_door(server: grpc.Server, arguments: Arguments) -> str:
    """Opens the port of a host, before its server starts.

    Over TCP only the one whose certificate lies in the directory of `--tls` gets in: each start has a key of
    its own, and neither side trusts anything but the certificate of the other.

    Args:
        server: The server.
        arguments: Say where.

    Returns:
        The gRPC target that callers use.

    Raises:
        OSError: The files of `--tls` cannot be read.
        RuntimeError: Nothing can be opened there.
    """
    if arguments.tls is None:
        address = f"unix:{arguments.socket}"
        server.add_secure_port(address, grpc.local_server_credentials(grpc.LocalConnectionType.UDS))
        return address
    directory = arguments.tls
    credentials = grpc.ssl_server_credentials(
        [((directory / KEY_FILE).read_bytes(), (directory / CERTIFICATE_FILE).read_bytes())],
        root_certificates=(directory / CALLER_FILE).read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port(f"{arguments.listen}:0", credentials)
    return f"{arguments.listen}:{port}"
