"""Where the server may listen, and with what: refused at start unless other machines meet TLS and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from server.access.tokens import TokenStore
from server.config import Settings, Tls, is_loopback
from server.errors import CertificateInvalid, ExposureRefused


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server's certificate with its key.

    Attributes:
        chain: PEM, the server's own first.
        key: PEM.
        expires: When the first of the chain ends.
    """

    chain: bytes
    key: bytes
    expires: datetime


def exposed(settings: Settings) -> bool:
    """Whether other machines can reach the address."""
    return not is_loopback(settings.listen)


def tokens_needed(settings: Settings) -> bool:
    """Whether callers are asked for tokens."""
    return settings.access.tokens or exposed(settings)


def check(settings: Settings, tokens: TokenStore | None) -> None:
    """Sees that other machines are met with TLS and tokens.

    Raises:
        ExposureRefused: They are not; says all that is missing.
    """
    if not tokens_needed(settings):
        return
    missing, fixes = [], []
    if exposed(settings) and not settings.tls.certificate:
        missing.append("TLS")
        fixes.append("set tls.certificate and tls.key in the configuration")
    if tokens is None or not tokens.any_usable():
        missing.append("a token")
        fixes.append("viseme tokens create NAME --scope talk")
    if not missing:
        return
    reach = "can be reached from other machines" if exposed(settings) else "is to ask for tokens"
    raise ExposureRefused(
        f"{settings.listen} {reach}, which needs {' and '.join(missing)}.",
        fix=" and ".join(fixes) + (", or listen on 127.0.0.1" if exposed(settings) else ""),
    )


def credentials(tls: Tls) -> grpc.ServerCredentials | None:
    """The credentials of the server; None without TLS.

    Raises:
        CertificateInvalid: The certificate, its key or the clients' CA cannot be used.
    """
    if not tls.certificate or not tls.key:
        return None
    certificate = read_certificate(tls.certificate, tls.key)
    if certificate.expires <= datetime.now(UTC):
        raise CertificateInvalid(
            f"The certificate {tls.certificate} expired on {certificate.expires:%Y-%m-%d}.", fix="Renew it."
        )
    clients = None
    if tls.client_ca:
        clients = _read(tls.client_ca)
        _parsed(clients, tls.client_ca)
    return grpc.ssl_server_credentials(
        [(certificate.key, certificate.chain)], clients, require_client_auth=clients is not None
    )


def read_certificate(chain: Path, key: Path) -> Certificate:
    """Reads a certificate and sees that the key is its own.

    Raises:
        CertificateInvalid: They cannot be read, or do not belong together.
    """
    chain_bytes, key_bytes = _read(chain), _read(key)
    first = _parsed(chain_bytes, chain)
    try:
        private = serialization.load_pem_private_key(key_bytes, password=None)
    except (ValueError, TypeError):
        raise CertificateInvalid(f"{key} is not a private key in PEM without a password.") from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != first.public_key().public_bytes(*form):
        raise CertificateInvalid(f"{key} is not the key of {chain}.")
    return Certificate(chain_bytes, key_bytes, first.not_valid_after_utc)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateInvalid(f"{path} cannot be read: {error.strerror}.") from None


def _parsed(data: bytes, path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError:
        raise CertificateInvalid(f"{path} is not a certificate in PEM.") from None
