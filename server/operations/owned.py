"""Names of what operations work on, with the tenant they belong to: two may each have an avatars/ada."""

from __future__ import annotations

from typing import Final

_TENANTS: Final = "tenants/"


def owned(target: str, owner: str) -> str:
    """`tenants/OWNER/TARGET`; the operator's targets are called as they are."""
    return f"{_TENANTS}{owner}/{target}" if owner else target


def bare(target: str) -> str:
    """An owned name as its owner calls it."""
    return target.split("/", 2)[2] if target.startswith(_TENANTS) else target
