"""A bundle with a network of the original TalkingGaussian: version 2 of the format (docs/bundle.md)."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from model_hosts.talking_gaussian.avatar_info import FORMAT, FPS, THUMBNAIL, UNITS, BundleInvalid, Camera
from model_hosts.talking_gaussian.bundle_files import read_files, write_files
from model_hosts.talking_gaussian.images import RgbImage, decode_png, encode_png
from model_hosts.talking_gaussian.upstream.checkpoint import CheckpointInvalid
from model_hosts.talking_gaussian.upstream.model import (
    ACTION_UNITS,
    BRANCHES,
    CODE,
    FloatArray,
    Tensors,
    check_tensors,
    expected_shapes,
)

NETWORK = "talking-gaussian"
VERSION = 2
_MAX_GAUSSIANS = 500_000
_LARGEST_FEATURE = 4096
_TEXTS = (
    "display_name",
    "description",
    "license",
    "attribution",
    "created",
    "default_voice",
    "audio_encoder",
)


@dataclass(frozen=True)
class UpstreamInfo:
    """`avatar.json` of version 2; docs/bundle.md says what each field means."""

    name: str
    display_name: str
    description: str
    synthetic: bool
    license: str
    attribution: str
    created: str
    width: int
    height: int
    camera: Camera
    default_voice: str
    branches: dict[str, dict[str, int]]
    audio_features: int
    drivers: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    expression_names: tuple[str, ...] = ACTION_UNITS
    lip_code: int = 2 * CODE
    audio_encoder: str = ""
    network: str = NETWORK
    fps: int = FPS
    format: str = FORMAT
    version: int = VERSION

    def to_json(self) -> str:
        """The text of `avatar.json`."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> UpstreamInfo:
        """Parses and checks `avatar.json`.

        Raises:
            BundleInvalid: Something is missing or makes no sense.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise BundleInvalid(f"avatar.json is not JSON: {error}") from error
        if not isinstance(raw, dict) or raw.get("format") != FORMAT or raw.get("version") != VERSION:
            raise BundleInvalid(f"avatar.json is not version {VERSION} of {FORMAT}")
        try:
            values = {part.name: raw[part.name] for part in fields(cls)}
            camera = Camera(*(float(raw["camera"][name]) for name in ("focal", "cx", "cy")))
            info = cls(**{**values, "camera": camera, "expression_names": tuple(raw["expression_names"])})
            info.check()
        except (KeyError, TypeError, ValueError) as error:
            problem = error if isinstance(error, BundleInvalid) else f"{type(error).__name__} {error}"
            raise BundleInvalid(f"avatar.json: {problem}") from error
        return info

    def check(self) -> None:
        """Checks that the values fit together.

        Raises:
            BundleInvalid: They do not.
        """
        wrong = [f"{name} must be text" for name in _TEXTS if not isinstance(getattr(self, name), str)]
        if not re.fullmatch(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", str(self.name)):
            wrong.append(f"name {self.name!r} must be 1-63 of a-z, 0-9, - and _")
        wrong += [
            f"{side} must be even and 64 to 2048, not {value!r}"
            for side, value in (("width", self.width), ("height", self.height))
            if not isinstance(value, int) or not 64 <= value <= 2048 or value % 2
        ]
        if not 10 <= self.camera.focal <= 1e5:
            wrong.append(f"camera.focal of {self.camera.focal} px is impossible")
        fixed = {"fps": FPS, "network": NETWORK, "lip_code": 2 * CODE, "expression_names": ACTION_UNITS}
        wrong += [f"{name} must be {value}" for name, value in fixed.items() if getattr(self, name) != value]
        if not isinstance(self.audio_features, int) or not 1 <= self.audio_features <= _LARGEST_FEATURE:
            wrong.append(f"audio_features must be 1 to {_LARGEST_FEATURE}")
        if not isinstance(self.drivers, dict) or not isinstance(self.training, dict):
            wrong.append("drivers and training must be objects")
        if not isinstance(self.branches, dict) or self.branches.keys() != set(BRANCHES):
            wrong.append("the branches must be face and mouth")
        elif any(not 1 <= self.count(name) <= _MAX_GAUSSIANS for name in BRANCHES):
            wrong.append(f"a branch must have 1 to {_MAX_GAUSSIANS} Gaussians")
        if wrong:
            raise BundleInvalid("; ".join(wrong))

    def count(self, branch: str) -> int:
        """Number of Gaussians of a branch; 0 when the file does not say."""
        count = self.branches[branch].get("count", 0) if isinstance(self.branches[branch], dict) else 0
        return count if isinstance(count, int) else 0


@dataclass(frozen=True)
class UpstreamBundle:
    """An avatar with the original's network in memory.

    Attributes:
        info: `avatar.json`.
        tensors: All float32: those of `UpstreamModel`, and those that `own_shapes` names.
        background: The plate, uint8 [height, width, 3] RGB.
        thumbnail: uint8 [256, 256, 3] RGB.
    """

    info: UpstreamInfo
    tensors: Tensors
    background: RgbImage
    thumbnail: RgbImage

    def tensor(self, name: str) -> FloatArray:
        """A tensor by name.

        Raises:
            BundleInvalid: There is none of this name.
        """
        try:
            return self.tensors[name]
        except KeyError:
            raise BundleInvalid(f"model.safetensors lacks {name}") from None

    def group(self, prefix: str) -> Tensors:
        """The tensors whose name starts with `prefix`, keyed by the rest of their name."""
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}

    def check(self) -> None:
        """Checks everything.

        Raises:
            BundleInvalid: Something is wrong; the message names it.
        """
        self.info.check()
        sizes = (
            ("background.png", self.background, (self.info.height, self.info.width, 3)),
            ("thumbnail.png", self.thumbnail, (THUMBNAIL, THUMBNAIL, 3)),
        )
        for name, image, shape in sizes:
            if image.shape != shape:
                raise BundleInvalid(f"{name} is {image.shape[1]}x{image.shape[0]} pixels")
        face, mouth = (self.info.count(name) for name in BRANCHES)
        shapes = expected_shapes(face, mouth, self.info.audio_features) | own_shapes()
        if unknown := sorted(self.tensors.keys() - shapes.keys()):
            raise BundleInvalid(f"model.safetensors: {unknown[0]} is unknown")
        try:
            check_tensors(self.tensors, shapes)
        except CheckpointInvalid as error:
            raise BundleInvalid(f"model.safetensors: {error}") from error

    @classmethod
    def read(cls, path: Path) -> UpstreamBundle:
        """Reads and checks a bundle directory or .zip.

        Raises:
            BundleInvalid: It is not there, or is not a valid bundle.
        """
        try:
            return cls.from_files(read_files(path))
        except BundleInvalid as error:
            raise BundleInvalid(f"{path.name} is not a usable avatar: {error}") from error

    @classmethod
    def from_files(cls, files: dict[str, bytes]) -> UpstreamBundle:
        """Like `read`, from the bytes of the four files."""
        info = UpstreamInfo.from_json(files["avatar.json"].decode("utf-8", "replace"))
        try:
            tensors = safetensors.numpy.load(files["model.safetensors"])
            images = [decode_png(files[name]) for name in ("background.png", "thumbnail.png")]
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise BundleInvalid(f"a file is damaged ({error})") from error
        floats = {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}
        bundle = cls(info, floats, images[0], images[1])
        bundle.check()
        return bundle

    def write(self, path: Path) -> None:
        """Writes the bundle to a directory or a .zip, replacing what is there in one step.

        Raises:
            BundleInvalid: It would not be valid when read back.
        """
        self.check()
        stored = {name: np.ascontiguousarray(value) for name, value in sorted(self.tensors.items())}
        metadata = {"format": f"{FORMAT}/{VERSION}"}
        files = {
            "avatar.json": self.info.to_json().encode(),
            "model.safetensors": safetensors.numpy.save(stored, metadata=metadata),
            "background.png": encode_png(self.background),
            "thumbnail.png": encode_png(self.thumbnail),
        }
        write_files(path, files)


def own_shapes() -> dict[str, tuple[int, ...]]:
    """Tensors that tie the original's inputs to ours; as in version 1, and the mean inputs."""
    return {
        "pose.mean": (4, 4),
        "pose.std": (6,),
        "track.std": (4,),
        "lip.mean": (2 * CODE,),
        "lip.closed": (2 * CODE,),
        "expression.mean": (len(ACTION_UNITS),),
        "units.mean": (UNITS,),
        "units.to_lip": (UNITS, 2 * CODE),
        "units.to_expression": (UNITS, len(ACTION_UNITS)),
    }
