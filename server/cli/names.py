"""Names as people type them: `demo` means `avatars/demo`."""

from __future__ import annotations


def avatar_name(name: str) -> str:
    """The resource name of an avatar; the collection may be left out."""
    return name if "/" in name else f"avatars/{name}"


def host_name(name: str) -> str:
    """The resource name of a host; the collection may be left out."""
    return name if "/" in name else f"hosts/{name}"
