r"""Where things live in the store: resource names and paths, and nothing outside it.

A caller may name a thing in the store by its resource name (`avatars/ada`), by a path relative to the store,
by an absolute path into it, or the way Windows writes paths (`avatars\ada`). `store_path` turns each of them
into one absolute path inside the store, or refuses it with one sentence. What it returns never leads outside:
`..` is resolved before symbolic links are, and the links afterwards.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.errors import FieldInvalid, FieldRequired, PathOutsideStore

MAX_PATH: Final = 1024
"""Longest path accepted, in characters."""

MAX_SEGMENT: Final = 255
"""Longest segment of a path, in UTF-8 bytes: the limit of the usual file systems."""

_SEPARATOR: Final = re.compile(r"[/\\]")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
# Windows opens a device for these names, whatever directory and extension they are given.
_DEVICE: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|clock\$|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE
)
_FORBIDDEN: Final = frozenset('<>:"|?*')
_STRUCTURAL: Final = frozenset('./\\:~<>"|?*')

_EXAMPLES: Final = {
    "avatars": "avatars/demo",
    "voices": "voices/af_heart",
    "hosts": "hosts/whisper",
    "gpus": "gpus/0",
    "operations": "operations/0193a5c2",
}

_ID_RULES: Final[dict[str, tuple[re.Pattern[str], str]]] = {
    "avatars": (
        re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"),
        "lower-case letters, digits and hyphens, at most 63",
    ),
    "voices": (
        re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"),
        "lower-case letters, digits, hyphens and underscores, at most 63",
    ),
    "hosts": (
        re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"),
        "lower-case letters, digits, hyphens and underscores, at most 63",
    ),
    "gpus": (
        re.compile(r"[A-Za-z0-9][A-Za-z0-9:_ -]{0,99}"),
        "letters, digits, spaces, hyphens, underscores and colons, at most 100",
    ),
    "operations": (re.compile(r"[a-z0-9]{1,63}"), "lower-case letters and digits, at most 63"),
}


@dataclass(frozen=True, slots=True)
class ResourceName:
    """The name of a resource: `COLLECTION/ID`.

    Attributes:
        collection: `avatars`, `voices`, `hosts`, `gpus` or `operations`.
        id: Name within the collection.
    """

    collection: str
    id: str

    def __post_init__(self) -> None:
        """Refuses what is no resource name.

        Raises:
            FieldInvalid: If the collection is unknown or the id is not allowed in it.
        """
        rule = _ID_RULES.get(self.collection)
        if rule is None:
            raise FieldInvalid(f"There is no collection {quoted(self.collection)}.")
        pattern, words = rule
        # Device names are refused so that a store can be copied to any machine.
        if pattern.fullmatch(self.id) is None or _DEVICE.fullmatch(self.id):
            raise FieldInvalid(
                f"{quoted(self.id)} cannot be a name in {self.collection}.",
                fix=f"Use {words}, and no device name of Windows such as con or nul.",
            )

    def __str__(self) -> str:
        return f"{self.collection}/{self.id}"


def parse_resource_name(name: str, collection: str) -> ResourceName:
    """Reads the resource name of a thing in one collection.

    Args:
        name: `COLLECTION/ID`.
        collection: The collection it must belong to, for example `avatars`.

    Raises:
        FieldRequired: If the name is empty.
        FieldInvalid: If it is not the name of a resource in this collection.
    """
    if not name:
        raise FieldRequired(f"A name is needed, for example {_EXAMPLES[collection]}.")
    head, separator, tail = name.partition("/")
    if not separator or head != collection:
        raise FieldInvalid(
            f"{quoted(name)} is not the name of a resource in {collection}.",
            fix=f"Write it as {collection}/ID, for example {_EXAMPLES[collection]}.",
        )
    return ResourceName(collection, tail)


def store_path(root: Path, name: str) -> Path:
    """The absolute path inside the store that a resource name or a path stands for.

    Nothing needs to exist there. Links inside the store are followed as long as they stay inside.

    Args:
        root: Directory of the store.
        name: A resource name, or a relative, absolute or Windows-style path.

    Raises:
        FieldRequired: If the name is empty.
        FieldInvalid: If the name cannot be a path on every system, or stands for the store as a whole.
        PathOutsideStore: If it leads outside the store.
    """
    base = Path(os.path.realpath(root))
    segments = _segments(root, base, name)
    for segment in segments:
        _check_segment(segment)
    if not segments:
        raise FieldInvalid(
            "The path stands for the store as a whole.", fix="Name something inside the store."
        )
    # An absolute name may reach the store through a link above it, so only what is below the root is joined.
    path = Path(os.path.realpath(base.joinpath(*segments)))
    if path == base or not path.is_relative_to(base):
        raise _outside(name)
    # A link that is left after resolving leads in a circle.
    below = path.relative_to(base).parts
    if any(base.joinpath(*below[: count + 1]).is_symlink() for count in range(len(below))):
        raise _outside(name)
    return path


def quoted(text: str) -> str:
    """What a caller sent, made fit for one line of an error message."""
    plain = text if len(text) <= 80 else text[:79] + "…"
    return "'" + "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in plain) + "'"


def _segments(root: Path, base: Path, name: str) -> list[str]:
    """Segments of `name` below the store, with `.` and `..` resolved as text."""
    if not name:
        raise FieldRequired("A path is needed.")
    if len(name) > MAX_PATH:
        raise FieldInvalid(f"The path is longer than {MAX_PATH} characters.")
    _check_characters(name)
    if name[:2] in {"\\\\", "//", "\\/", "/\\"} or name.startswith("~"):
        raise _outside(name)
    parts = _SEPARATOR.split(name)
    if _DRIVE.match(name) or parts[0] == "":
        return _below(root, base, name)
    return _collapse(parts, name)


def _below(root: Path, base: Path, name: str) -> list[str]:
    """Segments of an absolute name below the store, which it may spell with or without links resolved."""
    drive = _DRIVE.match(name)
    if drive and not _SEPARATOR.match(name, 2):
        # `C:avatars` depends on the current directory of a drive, which means nothing to a server.
        raise _outside(name)
    absolute = _collapse(_SEPARATOR.split(name[2 if drive else 0 :]), name)
    for start in (Path(os.path.abspath(root)), base):  # noqa: PTH100 (resolve() would follow links)
        prefix = list(start.parts[1:])
        same_drive = start.drive.casefold() == (drive.group() if drive else "").casefold()
        if same_drive and absolute[: len(prefix)] == prefix:
            return absolute[len(prefix) :]
    raise _outside(name)


def _collapse(parts: list[str], name: str) -> list[str]:
    """Drops `.` and empty parts and resolves `..`; going above the start is refused."""
    kept: list[str] = []
    for part in parts:
        if part in {"", "."}:
            continue
        if part != "..":
            kept.append(part)
        elif kept:
            kept.pop()
        else:
            raise _outside(name)
    return kept


def _check_characters(name: str) -> None:
    """Refuses characters that cannot be shown, and those another system may read as a separator or a dot."""
    for character in name:
        category = unicodedata.category(character)
        # Control, format (zero width, change of direction), surrogate, private, unassigned; line separators.
        if category in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            raise FieldInvalid(f"The path {quoted(name)} contains a character that cannot be shown.")
        folded = unicodedata.normalize("NFKC", character)
        if folded != character and not _STRUCTURAL.isdisjoint(folded):
            raise FieldInvalid(
                f"The path {quoted(name)} contains {quoted(character)}, which only looks like {folded}."
            )


def _check_segment(segment: str) -> None:
    """Refuses segments that one of the usual file systems cannot hold or reads in another way.

    Raises:
        FieldInvalid: Always when refused.
    """
    if len(segment.encode()) > MAX_SEGMENT:
        raise FieldInvalid(f"A name in the path is longer than {MAX_SEGMENT} bytes.")
    if not _FORBIDDEN.isdisjoint(segment):
        raise FieldInvalid(f'{quoted(segment)} contains one of the characters < > : " | ? *.')
    if segment[-1] in ". " or segment[0] == " ":
        raise FieldInvalid(f"{quoted(segment)} begins or ends with a space or ends with a dot.")
    if _DEVICE.fullmatch(segment.partition(".")[0].rstrip(" ")):
        raise FieldInvalid(f"{quoted(segment)} is the name of a device on Windows.")


def _outside(name: str) -> PathOutsideStore:
    return PathOutsideStore(
        f"The path {quoted(name)} leads outside the store.", fix="Give a resource name such as avatars/demo."
    )
