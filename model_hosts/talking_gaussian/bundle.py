"""The avatar bundle: what an avatar is stored, exported and rendered from.

A directory (or a .zip of it) with `avatar.json`, `model.safetensors`, `background.png` and `thumbnail.png`.
The format is documented in docs/bundle.md. Nothing in it can run code: there are no pickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from model_hosts.talking_gaussian.avatar_info import (
    BRANCHES,
    FORMAT,
    FPS,
    OUTPUTS,
    THUMBNAIL,
    TORSO_CONDITION,
    UNITS,
    VERSION,
    AvatarInfo,
    BranchInfo,
    BundleInvalid,
    Camera,
)
from model_hosts.talking_gaussian.bundle_files import read_files, write_files
from model_hosts.talking_gaussian.images import RgbImage, decode_png, encode_png

__all__ = [
    "BRANCHES",
    "FPS",
    "OUTPUTS",
    "THUMBNAIL",
    "TORSO_CONDITION",
    "UNITS",
    "AvatarInfo",
    "BranchInfo",
    "Bundle",
    "BundleInvalid",
    "Camera",
    "expected_shapes",
]

FLOAT32 = frozenset(
    {"pose.mean", "pose.std", "track.std", "lip.closed", "lip.std", "units.mean"}
    | {f"{branch}.xyz" for branch in BRANCHES}
)
"""Tensors stored as float32; the others are float16, except `audio.*` and `idle.*`, which may be either."""
FREE_PREFIXES = ("audio.", "idle.")
"""Groups whose tensors are described by their owners, not here."""

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bundle:
    """An avatar in memory.

    Attributes:
        info: `avatar.json`.
        tensors: The tensors of `model.safetensors`, floats as float32 whatever they are stored as.
        background: The plate, uint8 [height, width, 3] RGB.
        thumbnail: uint8 [256, 256, 3] RGB.
    """

    info: AvatarInfo
    tensors: Mapping[str, npt.NDArray[Any]]
    background: RgbImage
    thumbnail: RgbImage

    def tensor(self, name: str) -> FloatArray:
        """A float tensor by name.

        Raises:
            BundleInvalid: There is none of this name.
        """
        try:
            return cast(FloatArray, self.tensors[name])
        except KeyError:
            raise BundleInvalid(f"model.safetensors lacks {name}") from None

    def group(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        """The tensors whose name starts with `prefix`, keyed by the rest of their name."""
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}

    def check(self) -> None:
        """Checks sizes, types and finiteness of everything.

        Raises:
            BundleInvalid: The first few things that are wrong, each by name.
        """
        self.info.check()
        size = (self.info.height, self.info.width, 3)
        for name, image, shape in (
            ("background.png", self.background, size),
            ("thumbnail.png", self.thumbnail, (THUMBNAIL, THUMBNAIL, 3)),
        ):
            if image.shape != shape:
                raise BundleInvalid(f"{name} is {_size(image.shape)} pixels, but must be {_size(shape)}")
        wrong: list[str] = []
        shapes = expected_shapes(self.info)
        wrong += [f"{name} is missing" for name in shapes if name not in self.tensors]
        for name, value in self.tensors.items():
            if name in shapes:
                if not _fits(value.shape, shapes[name]):
                    wrong.append(f"{name} is {list(value.shape)}, but must be {_shape_text(shapes[name])}")
            elif not name.startswith(FREE_PREFIXES):
                wrong.append(f"{name} is unknown")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                wrong.append(f"{name} has numbers that are not finite")
        if not wrong:
            wrong += self._mismatched_attention()
        if wrong:
            more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            raise BundleInvalid("model.safetensors: " + "; ".join(wrong[:4]) + more)

    def _mismatched_attention(self) -> list[str]:
        wrong = []
        for branch in BRANCHES:
            for part in ("code_attention", "expr_attention"):
                first = f"{branch}.net.{part}.0.weight"
                if first in self.tensors:
                    width = self.tensors[first].shape[0]
                    inner = (
                        self.tensors[f"{branch}.net.{part}.0.bias"].shape[0],
                        self.tensors[f"{branch}.net.{part}.1.weight"].shape[1],
                    )
                    if inner != (width, width):
                        wrong.append(f"the layers of {branch}.net.{part} do not fit together")
        return wrong

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Reads and checks a bundle directory or .zip.

        Raises:
            BundleInvalid: It is not there, or is not a valid bundle.
        """
        try:
            return cls.from_files(read_files(path))
        except BundleInvalid as error:
            raise BundleInvalid(f"{path.name} is not a usable avatar: {error}") from error

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Bundle:
        """Like `read`, from the bytes of the four files.

        Raises:
            BundleInvalid: They are no valid bundle.
        """
        info = AvatarInfo.from_json(files["avatar.json"].decode("utf-8", "replace"))
        try:
            stored = safetensors.numpy.load(files["model.safetensors"])
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise BundleInvalid(f"model.safetensors is damaged ({error})") from error
        images = []
        for name in ("background.png", "thumbnail.png"):
            try:
                images.append(decode_png(files[name]))
            except ValueError as error:
                raise BundleInvalid(f"{name}: {error}") from error
        tensors = {
            name: np.ascontiguousarray(value, np.float32) if value.dtype.kind == "f" else value
            for name, value in stored.items()
        }
        bundle = cls(info, tensors, images[0], images[1])
        bundle.check()
        return bundle

    def write(self, path: Path) -> None:
        """Writes the bundle to a directory, or to a .zip when the name ends so, replacing what is there.

        A reader sees the old bundle or the new one, never half of one.

        Raises:
            BundleInvalid: The bundle would not be valid when read back.
        """
        stored = {name: _stored(name, value) for name, value in sorted(self.tensors.items())}
        Bundle(self.info, stored, self.background, self.thumbnail).check()
        files = {
            "avatar.json": self.info.to_json().encode(),
            "model.safetensors": safetensors.numpy.save(stored, metadata={"format": f"{FORMAT}/{VERSION}"}),
            "background.png": encode_png(self.background),
            "thumbnail.png": encode_png(self.thumbnail),
        }
        write_files(path, files)


def expected_shapes(info: AvatarInfo) -> dict[str, tuple[int | None, ...]]:
    """Name and shape of every tensor the bundle must have; None is a size that is free."""
    shapes: dict[str, tuple[int | None, ...]] = {
        "pose.mean": (4, 4),
        "pose.std": (6,),
        "track.std": (4,),
        "lip.embed.weight": (info.branches["face"].code, info.lip_code),
        "lip.embed.bias": (info.branches["face"].code,),
        "lip.closed": (info.lip_code,),
        "lip.std": (info.lip_code,),
        "units.mean": (UNITS,),
        "units.to_lip": (UNITS, info.lip_code),
        "units.to_expression": (UNITS, len(info.expression_names)),
    }
    for name, branch in info.branches.items():
        count, width, encoding = branch.count, branch.hidden, branch.encoding
        own: dict[str, tuple[int | None, ...]] = {
            "xyz": (count, 3),
            "rgb": (count, 3),
            "log_scale": (count, 3),
            "quat": (count, 4),
            "opacity_logit": (count,),
            "net.encode.weight": (width, encoding),
            "net.encode.bias": (width,),
            "net.hidden.weight": (width, width),
            "net.hidden.bias": (width,),
            "net.out.weight": (OUTPUTS, width),
            "net.out.bias": (OUTPUTS,),
        }
        if name != "torso":
            own["sh"] = (count, 3, 3)
        for level, side in enumerate(branch.levels):
            own[f"grid.{level}"] = (3, branch.channels, side, side)
        for part, attention, inputs in (
            ("code", "code_attention", branch.code),
            ("expr", "expr_attention", branch.expression),
        ):
            if inputs:
                own[f"net.{part}.weight"] = (width, inputs)
                own[f"net.{attention}.0.weight"] = (None, encoding)
                own[f"net.{attention}.0.bias"] = (None,)
                own[f"net.{attention}.1.weight"] = (inputs, None)
                own[f"net.{attention}.1.bias"] = (inputs,)
        shapes.update({f"{name}.{part}": shape for part, shape in own.items()})
    return shapes


def _stored(name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if value.dtype.kind != "f":
        return np.ascontiguousarray(value)
    kept = name in FLOAT32 or (name.startswith(FREE_PREFIXES) and value.dtype == np.float32)
    with np.errstate(over="ignore"):  # what overflows float16 is found by check()
        return np.ascontiguousarray(value, np.float32 if kept else np.float16)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        want is None or want == have for have, want in zip(shape, expected, strict=True)
    )


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if side is None else str(side) for side in shape) + "]"
