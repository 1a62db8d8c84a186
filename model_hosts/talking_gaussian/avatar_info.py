"""`avatar.json` of a bundle: its fields, how they are read and what must hold between them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

FORMAT = "viseme-avatar"
VERSION = 1
FPS = 25
BRANCHES = ("face", "mouth", "torso")
OUTPUTS = 14
"""Outputs of a deformation network: dxyz 3, dquat 4, dlog_scale 3, dopacity_logit 1, drgb 3."""
UNITS = 52
TORSO_CONDITION = 10
THUMBNAIL = 256

_MAX_GAUSSIANS = 500_000


class BundleInvalid(ValueError):  # noqa: N818 - named like its reason, BUNDLE_INVALID
    """The avatar bundle cannot be used; the message says where it is and what is wrong with it."""


@dataclass(frozen=True)
class Camera:
    """Pinhole camera in pixels. The centre of pixel (column i, row j) is at (i + 0.5, j + 0.5)."""

    focal: float
    cx: float
    cy: float


@dataclass(frozen=True)
class BranchInfo:
    """Sizes of one branch (face, mouth or torso).

    Attributes:
        count: Number of Gaussians.
        bound: Half the side of the cube that the tri-planes span, in metres.
        levels: Side of each tri-plane grid.
        channels: Features of each grid cell.
        hidden: Width of the network.
        code: Lip code inputs after `lip.embed`; 0 for the torso.
        expression: Expression inputs; for the torso its condition. May be 0 for the mouth.
        centre: Centre of the tri-planes' cube, in metres.
    """

    count: int
    bound: float
    levels: tuple[int, ...]
    channels: int
    hidden: int
    code: int
    expression: int
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def encoding(self) -> int:
        """Length of the tri-plane feature vector of a Gaussian."""
        return 3 * self.channels * len(self.levels)


@dataclass(frozen=True)
class AvatarInfo:
    """`avatar.json`. See docs/bundle.md for each field."""

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
    branches: dict[str, BranchInfo]
    lip_code: int
    expression_names: tuple[str, ...]
    torso_pivot: tuple[float, float]
    audio_encoder: str
    drivers: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    torso_condition: int = TORSO_CONDITION
    fps: int = FPS
    format: str = FORMAT
    version: int = VERSION

    def to_json(self) -> str:
        """The text of `avatar.json`."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> AvatarInfo:
        """Parses and checks `avatar.json`.

        Raises:
            BundleInvalid: Something is missing or makes no sense.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise BundleInvalid(f"avatar.json is not JSON: {error}") from error
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise BundleInvalid(f'avatar.json does not say "format": "{FORMAT}"')
        if raw.get("version") != VERSION:
            raise BundleInvalid(
                f"version {raw.get('version')!r} of the bundle format is unknown here (known: {VERSION})"
            )
        try:
            info = cls(
                name=_text(raw, "name"),
                display_name=_text(raw, "display_name"),
                description=_text(raw, "description"),
                synthetic=_typed(raw, "synthetic", bool),
                license=_text(raw, "license"),
                attribution=_text(raw, "attribution"),
                created=_text(raw, "created"),
                width=_typed(raw, "width", int),
                height=_typed(raw, "height", int),
                camera=_camera(_typed(raw, "camera", dict)),
                default_voice=_text(raw, "default_voice"),
                branches={name: _branch(raw, name) for name in BRANCHES},
                lip_code=_typed(raw, "lip_code", int),
                expression_names=tuple(str(name) for name in _typed(raw, "expression_names", list)),
                torso_pivot=cast(tuple[float, float], _floats(raw, "torso_pivot", 2)),
                audio_encoder=_text(raw, "audio_encoder"),
                drivers=_typed(raw, "drivers", dict),
                training=_typed(raw, "training", dict),
                torso_condition=_typed(raw, "torso_condition", int),
                fps=_typed(raw, "fps", int),
            )
        except BundleInvalid as error:
            raise BundleInvalid(f"avatar.json: {error}") from error
        info.check()
        return info

    def check(self) -> None:
        """Checks that the values fit together.

        Raises:
            BundleInvalid: They do not.
        """
        wrong = self._wrong_sizes() + self._wrong_branches()
        if not re.fullmatch(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?", self.name):
            wrong.append(f"name {self.name!r} must be 1-63 of a-z, 0-9, - and _")
        if wrong:
            raise BundleInvalid("avatar.json: " + "; ".join(wrong))

    def _wrong_sizes(self) -> list[str]:
        wrong = [] if self.fps == FPS else [f"fps must be {FPS}, not {self.fps}"]
        wrong += [
            f"{side} must be even and 64 to 2048, not {value}"
            for side, value in (("width", self.width), ("height", self.height))
            if not 64 <= value <= 2048 or value % 2
        ]
        if not 10 <= self.camera.focal <= 1e5:
            wrong.append(f"camera.focal of {self.camera.focal} px is impossible")
        if not 1 <= self.lip_code <= 64:
            wrong.append(f"lip_code must be 1 to 64, not {self.lip_code}")
        if self.torso_condition != TORSO_CONDITION:
            wrong.append(f"torso_condition must be {TORSO_CONDITION}, not {self.torso_condition}")
        return wrong

    def _wrong_branches(self) -> list[str]:
        wrong: list[str] = []
        face, mouth, torso = (self.branches[name] for name in BRANCHES)
        if face.code < 1 or mouth.code != face.code or torso.code != 0:
            wrong.append("face and mouth need the same code inputs, the torso none")
        if face.expression != len(self.expression_names):
            wrong.append("face.expression must equal the number of expression_names")
        if mouth.expression not in {0, face.expression}:
            wrong.append("mouth.expression must be 0 or that of the face")
        if torso.expression != TORSO_CONDITION:
            wrong.append(f"torso.expression must be {TORSO_CONDITION}")
        for name, branch in self.branches.items():
            if branch.count < 1 or branch.bound <= 0 or branch.hidden < 1 or branch.channels < 1:
                wrong.append(f"branches.{name} has a size below 1")
            if not branch.levels or any(not 2 <= level <= 1024 for level in branch.levels):
                wrong.append(f"branches.{name}.levels must be 2 to 1024")
        if sum(branch.count for branch in self.branches.values()) > _MAX_GAUSSIANS:
            wrong.append(f"more than {_MAX_GAUSSIANS} Gaussians")
        return wrong


def _typed(raw: Mapping[str, Any], key: str, kind: type) -> Any:
    if key not in raw:
        raise BundleInvalid(f"{key} is missing")
    value = raw[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BundleInvalid(f"{key} must be of type {kind.__name__}, not {type(value).__name__}")
    return value


def _text(raw: Mapping[str, Any], key: str) -> str:
    return cast(str, _typed(raw, key, str))


def _number(raw: Mapping[str, Any], key: str) -> float:
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BundleInvalid(f"{key} must be a number")
    return float(value)


def _floats(raw: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    values = _typed(raw, key, list)
    if len(values) != count:
        raise BundleInvalid(f"{key} must be {count} numbers")
    return tuple(_number({key: value}, key) for value in values)


def _camera(raw: Mapping[str, Any]) -> Camera:
    return Camera(*(_number(raw, key) for key in ("focal", "cx", "cy")))


def _branch(raw: Mapping[str, Any], name: str) -> BranchInfo:
    branches = _typed(raw, "branches", dict)
    try:
        own = _typed(branches, name, dict)
        levels = _typed(own, "levels", list)
        return BranchInfo(
            bound=_number(own, "bound"),
            levels=tuple(_typed({"levels": level}, "levels", int) for level in levels),
            centre=cast(tuple[float, float, float], _floats(own, "centre", 3)),
            **{key: _typed(own, key, int) for key in ("count", "channels", "hidden", "code", "expression")},
        )
    except BundleInvalid as error:
        raise BundleInvalid(f"branches.{name}: {error}") from error
