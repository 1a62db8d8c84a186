"""Pages of a listing (AIP-158)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from server.errors import FieldInvalid

_DEFAULT_SIZE: Final = 50
_MAX_SIZE: Final = 200

T = TypeVar("T")


def page_size(size: int) -> int:
    """Most items on a page; 0 asks for the default.

    Raises:
        FieldInvalid: The size is negative.
    """
    if size < 0:
        raise FieldInvalid("page_size must not be negative.", field="page_size")
    return min(size or _DEFAULT_SIZE, _MAX_SIZE)


def last_given(token: str) -> str:
    """The key of the last item of the page before; empty for the first page.

    Raises:
        FieldInvalid: The token is none of ours.
    """
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError):
        raise invalid_token() from None


def next_token(key: str) -> str:
    """The token for the page after the item with this key."""
    return base64.urlsafe_b64encode(key.encode()).decode()


def invalid_token() -> FieldInvalid:
    """The error for a token that is none of ours."""
    return FieldInvalid("page_token is not one this server gave.", field="page_token")


def page(items: Sequence[T], name: Callable[[T], str], size: int, token: str) -> tuple[Sequence[T], str]:
    """One page of items that are ordered by name.

    The token is the name of the last item given, so a page is right even when items came or went in between.

    Args:
        items: All items, in the order of their names.
        name: The name of an item.
        size: Most items on a page; 0 for the default.
        token: That of the page before, or empty.

    Returns:
        The items, and the token of the next page, empty on the last.

    Raises:
        FieldInvalid: The size is negative, or the token is none of ours.
    """
    size = page_size(size)
    if last := last_given(token):
        items = [item for item in items if name(item) > last]
    given = items[:size]
    more = len(items) > size
    return given, next_token(name(given[-1])) if more else ""
