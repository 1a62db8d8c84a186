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
    if size < 0:
        raise FieldInvalid("page_size must not be negative.", field="page_size")
    size = min(size or _DEFAULT_SIZE, _MAX_SIZE)
    if token:
        try:
            last = base64.urlsafe_b64decode(token.encode()).decode()
        except (binascii.Error, ValueError):
            raise FieldInvalid("page_token is not one this server gave.", field="page_token") from None
        items = [item for item in items if name(item) > last]
    given = items[:size]
    more = len(items) > size
    return given, base64.urlsafe_b64encode(name(given[-1]).encode()).decode() if more else ""
