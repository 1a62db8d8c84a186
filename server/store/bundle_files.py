"""The files of an avatar bundle as the server checks them: enough to list and to trust them, without numpy.

The rendering host checks the tensors themselves when it loads a bundle.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from server.errors import BundleInvalid
from server.store.paths import quoted
from server.store.safetensors_header import read_shapes

BUNDLE_FILES: Final = ("avatar.json", "model.safetensors", "background.png", "thumbnail.png")
_THUMBNAIL: Final = (256, 256)
_MAX_JSON_BYTES: Final = 1024**2
_MAX_RATIO: Final = 200
_RATIO_FREE_BYTES: Final = 1024**2
_PNG_START: Final = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


class Branch(BaseModel):
    """One branch of the avatar: face, mouth or torso."""

    model_config = ConfigDict(extra="allow", frozen=True)

    count: int = Field(gt=0, le=500_000)


class AvatarInfo(BaseModel):
    """What the server uses of avatar.json; the rest is the rendering host's."""

    model_config = ConfigDict(extra="allow", frozen=True)

    format: Literal["viseme-avatar"]
    version: Literal[1, 2]
    name: str = Field(min_length=1, max_length=63)
    display_name: str = Field(min_length=1, max_length=200)
    description: str = Field(max_length=2000)
    synthetic: bool
    license: str = Field(max_length=200)
    attribution: str = Field(max_length=4000)
    created: datetime
    width: int = Field(ge=64, le=2048, multiple_of=2)
    height: int = Field(ge=64, le=2048, multiple_of=2)
    fps: Literal[25]
    default_voice: str = Field(max_length=100)
    branches: dict[str, Branch]
    audio_encoder: str = Field(max_length=100)

    @field_validator("created")
    @classmethod
    def _with_zone(cls, created: datetime) -> datetime:
        return created if created.tzinfo else created.replace(tzinfo=UTC)

    @model_validator(mode="after")
    def _known_branches(self) -> Self:
        # Version 2 holds a network of the original TalkingGaussian, which has no torso.
        expected = ("face", "mouth", "torso") if self.version == 1 else ("face", "mouth")
        if self.branches.keys() != set(expected):
            raise ValueError(f"the branches must be {', '.join(expected[:-1])} and {expected[-1]}")
        return self

    @property
    def gaussian_count(self) -> int:
        """Number of Gaussians over all branches."""
        return sum(branch.count for branch in self.branches.values())


def unpack_bundle(archive: Path, directory: Path, max_bytes: int) -> None:
    """Unpacks a .zip that may come from anywhere.

    Only the four files of a bundle are taken, at the top of the archive; anything else refuses it.

    Args:
        archive: The .zip.
        directory: Where the files go.
        max_bytes: Most bytes they may have together.

    Raises:
        BundleInvalid: It is not a .zip, or holds something that does not belong into a bundle.
        OSError: The files cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            entries = [entry for entry in source.infolist() if not entry.is_dir()]
            _check_entries(entries, max_bytes)
            for entry in entries:
                # Sizes in an archive are claims: what is really there is counted.
                with source.open(entry) as packed, (directory / entry.filename).open("xb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
                    if file.tell() != entry.file_size:
                        raise BundleInvalid("The .zip is damaged.")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleInvalid(
            "The file is not a .zip that can be read, or it is damaged.",
            fix="Export the avatar again: viseme avatars export NAME -o bundle.zip",
        ) from error


def _check_entries(entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    names = [entry.filename for entry in entries]
    for entry in entries:
        if entry.filename not in BUNDLE_FILES:
            raise BundleInvalid(f"The .zip holds {quoted(entry.filename)}, which is no part of a bundle.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BundleInvalid(f"{entry.filename} in the .zip is a link.")
        if entry.file_size > max(entry.compress_size * _MAX_RATIO, _RATIO_FREE_BYTES):
            raise BundleInvalid(f"{entry.filename} in the .zip is packed too tightly to be a bundle's.")
    if len(set(names)) != len(names):
        raise BundleInvalid("The .zip holds the same file twice.")
    if missing := [name for name in BUNDLE_FILES if name not in names]:
        raise BundleInvalid(f"The .zip lacks {missing[0]}.")
    if sum(entry.file_size for entry in entries) > max_bytes:
        raise BundleInvalid(f"The bundle unpacks to more than {max_bytes // 1024**2} MiB.")


def check_bundle(directory: Path) -> AvatarInfo:
    """Checks the files of a bundle and returns its avatar.json.

    Raises:
        BundleInvalid: A file is missing or damaged, or they do not fit together; the message says which.
    """
    try:
        info = _read_info(directory / "avatar.json")
        shapes = read_shapes(directory / "model.safetensors")
        _check_png(directory / "background.png", (info.width, info.height))
        _check_png(directory / "thumbnail.png", _THUMBNAIL)
    except OSError as error:
        name = Path(error.filename).name if error.filename else "a file"
        raise BundleInvalid(f"The bundle lacks {name}, or it cannot be read.") from error
    except ValueError as error:
        raise BundleInvalid(f"model.safetensors is damaged: {error}.") from error
    for name, branch in info.branches.items():
        if shapes.get(f"{name}.xyz") != (branch.count, 3):
            raise BundleInvalid(f"model.safetensors lacks the {branch.count} points of branch {name}.")
    return info


def _read_info(path: Path) -> AvatarInfo:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise BundleInvalid("avatar.json is too large.")
    try:
        return AvatarInfo.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleInvalid(f"avatar.json is not valid: {_first_problem(error)}.") from error


def _first_problem(error: ValidationError) -> str:
    first: Any = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    said = str(first["msg"]).removeprefix("Value error, ")
    return f"{place}: {said}" if place else said


def _check_png(path: Path, size: tuple[int, int]) -> None:
    """Checks what a PNG says of itself: that it is one, and how many pixels it will be."""
    with path.open("rb") as file:
        start = file.read(24)
    if len(start) < 24 or not start.startswith(_PNG_START):
        raise BundleInvalid(f"{path.name} is not a PNG.")
    width, height = int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
    if (width, height) != size:
        raise BundleInvalid(f"{path.name} is {width}x{height} pixels, not {size[0]}x{size[1]}.")
