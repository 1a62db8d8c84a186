"""What `viseme doctor` looks at where a server meets others: address, certificate, tokens, files, metrics."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from server.cli.doctor_checks import Check, port

if TYPE_CHECKING:
    from server.config import Settings

SOON_DAYS: Final = 30
"""A certificate that ends earlier than this is worth a note."""


def exposure_checks(settings: Settings) -> Iterator[Check]:
    """All of them, one by one as they are done."""
    yield exposure(settings)
    if settings.tls.certificate is not None:
        yield certificate(settings)
    yield from private_files(settings)
    if settings.observability.metrics_listen:
        found = port(settings.observability.metrics_listen)
        fix = "Set observability.metrics_listen to another port"
        yield Check("metrics", found.state, found.detail, fix if found.fix else "")


def exposure(settings: Settings) -> Check:
    """Whether the address may be listened at with the TLS and the tokens there are."""
    from server.access import exposure as access
    from server.access.tokens import TokenStore
    from server.errors import ExposureRefused

    if not access.tokens_needed(settings):
        return Check("exposure", "ok", f"{settings.listen} serves this machine only, without tokens")
    path = settings.home / "store" / "tokens.db"
    tokens = TokenStore(path) if path.is_file() else None
    try:
        access.check(settings, tokens)
        usable = sum(token.usable(datetime.now(UTC).timestamp()) for token in tokens.list()) if tokens else 0
    except ExposureRefused as refused:
        return Check("exposure", "note", f"viseme serve will refuse: {refused.message}", refused.fix or "")
    finally:
        if tokens is not None:
            tokens.close()
    where = "other machines" if access.exposed(settings) else "this machine"
    return Check("exposure", "ok", f"{settings.listen} serves {where} to whoever has one of {usable} tokens")


def certificate(settings: Settings) -> Check:
    """Whether the certificate can be used, and for how long."""
    from server.access.exposure import read_certificate
    from server.errors import CertificateInvalid

    chain, key = settings.tls.certificate, settings.tls.key
    assert chain is not None and key is not None  # noqa: S101 (the settings have both or neither)
    try:
        found = read_certificate(chain, key)
    except CertificateInvalid as error:
        return Check("certificate", "note", error.message, "Set tls.certificate and tls.key")
    days = (found.expires - datetime.now(UTC)).days
    until = f"{found.expires:%Y-%m-%d}"
    if days < 0:
        return Check("certificate", "note", f"expired on {until}", "Renew it")
    if days < SOON_DAYS:
        return Check("certificate", "note", f"ends in {days} days, on {until}", "Renew it")
    return Check("certificate", "ok", f"good until {until}")


def private_files(settings: Settings) -> Iterator[Check]:
    """Files that only the user of the server should read."""
    store = settings.home / "store"
    for path in (settings.tls.key, store, store / "tokens.db", settings.home / "logs" / "audit.jsonl"):
        if path is not None and _open_to_others(path):
            mode = "700" if path.is_dir() else "600"
            yield Check("permissions", "note", f"others can read {path}", f"chmod {mode} {path}")


def _open_to_others(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    # A group may share the key of a certificate.
    return bool(mode & (stat.S_IROTH | stat.S_IWOTH))
