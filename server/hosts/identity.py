"""Keys of one launch: each side of a TCP connection to a host trusts one certificate, that of the other."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# The clocks of two machines differ; the keys themselves live as long as one process.
_BEFORE: Final = timedelta(days=1)
_AFTER: Final = timedelta(days=3650)
_KEEPALIVE: Final = (
    # A machine that vanished without a word is noticed.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key and its self-signed certificate, both PEM.

    Attributes:
        name: Name in the certificate.
        key: The private key; stays on the machine that made it.
        certificate: The certificate, which the other side pins.
    """

    name: str
    key: bytes
    certificate: bytes


def new_identity() -> Identity:
    """Makes a P-256 key and a certificate with a name that nobody else has."""
    name = f"{secrets.token_hex(8)}.viseme.internal"
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + _AFTER)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return Identity(
        name,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )


def write_identity(directory: Path, identity: Identity, caller: bytes) -> None:
    """Writes what a host reads before it listens on TCP (`model_hosts.sdk.door`).

    Args:
        directory: A new directory that only this user can read.
        identity: Of the host.
        caller: Certificate of the only one who may call it.
    """
    directory.mkdir(mode=0o700)
    for name, content in (
        ("host.key", identity.key),
        ("host.crt", identity.certificate),
        ("caller.crt", caller),
    ):
        (directory / name).write_bytes(content)


def secure_channel(
    address: str, host: bytes, caller: Identity, options: tuple[tuple[str, int], ...]
) -> grpc.aio.Channel:
    """A channel to a host on TCP.

    Args:
        address: `ADDRESS:PORT`.
        host: Certificate of the host.
        caller: Who calls.
        options: Of the channel.
    """
    (name,) = (
        x509.load_pem_x509_certificate(host)
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value.get_values_for_type(x509.DNSName)
    )
    credentials = grpc.ssl_channel_credentials(host, caller.key, caller.certificate)
    named = ("grpc.ssl_target_name_override", name)
    return grpc.aio.secure_channel(address, credentials, options=[*options, *_KEEPALIVE, named])
