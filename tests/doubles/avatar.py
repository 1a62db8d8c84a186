"""A synthetic avatar bundle: a head-shaped cloud of random Gaussians with random small networks.

It is a valid bundle of any size and renders to something with a face's proportions, so that tests and
benchmarks need no trained avatar. Everything follows from the seed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.bundle import (
    OUTPUTS,
    UNITS,
    AvatarInfo,
    BranchInfo,
    Bundle,
    Camera,
)

Doubles = npt.NDArray[np.float64]

EXPRESSIONS = (
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookUpLeft",
    "eyeLookDownLeft",
    "eyeLookInLeft",
    "eyeLookOutLeft",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "eyeSquintLeft",
    "eyeSquintRight",
)
LIP_CODE = 8
CODE_INPUTS = 32
_DISTANCE = 0.84


def unit_names() -> list[str]:
    """Names for the 52 face units: the expressions first, then numbered ones."""
    return [*EXPRESSIONS, *(f"unit{number}" for number in range(len(EXPRESSIONS), UNITS))]


def make_avatar(
    count: int = 600, seed: int = 0, size: int = 128, name: str = "double", motion: float = 0.3
) -> Bundle:
    """Makes a bundle of about `count` Gaussians for a square video of `size` pixels.

    Args:
        count: Gaussians of all branches together: 63 % face, 7 % mouth, 30 % torso.
        seed: Of everything random.
        size: Width and height of the video in pixels.
        name: Name of the avatar.
        motion: Size of the networks' last layer; 0 makes an avatar that does not deform.
    """
    rng = np.random.default_rng(seed)
    focal = 1200 * size / 512
    mouth_count, torso_count = max(1, int(count * 0.07)), max(1, int(count * 0.3))
    face_count = max(1, count - mouth_count - torso_count)
    branches = {
        "face": BranchInfo(face_count, 0.15, (16, 32, 64), 4, 64, CODE_INPUTS, len(EXPRESSIONS)),
        "mouth": BranchInfo(mouth_count, 0.15, (16, 48), 4, 32, CODE_INPUTS, 0),
        "torso": BranchInfo(torso_count, 0.35, (8, 24, 64), 4, 32, 0, 10, (0.0, 0.16, _DISTANCE)),
    }
    tensors: dict[str, Doubles] = {}
    direction = rng.normal(size=(face_count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    direction[:, 2] = np.abs(direction[:, 2])
    face = direction * (0.075, 0.105, 0.09)
    skin = np.array([0.8, 0.6, 0.5]) * (0.6 + 0.4 * direction[:, 2:])
    lips = (np.abs(face[:, 0]) < 0.025) & (np.abs(face[:, 1] + 0.04) < 0.01)
    skin[lips] = 0.7, 0.25, 0.25
    inside = rng.uniform((-0.02, -0.05, 0.07), (0.02, -0.03, 0.075), (mouth_count, 3))
    chest = rng.uniform((-0.2, 0.09, _DISTANCE + 0.04), (0.2, 0.2, _DISTANCE + 0.06), (torso_count, 3))
    spacing = np.sqrt(0.05 / face_count)
    _add_gaussians(tensors, rng, "face", face, skin, spacing)
    _add_gaussians(tensors, rng, "mouth", inside, np.full_like(inside, 0.4), 0.6 * spacing)
    _add_gaussians(tensors, rng, "torso", chest, np.tile([0.1, 0.4, 0.4], (torso_count, 1)), 1.5 * spacing)
    for branch, sizes in branches.items():
        _add_network(tensors, rng, branch, sizes, motion)
    mean_view = np.diag([1.0, -1.0, -1.0, 1.0])
    mean_view[2, 3] = _DISTANCE
    tensors.update(
        {
            "pose.mean": mean_view,
            "pose.std": np.array([0.05, 0.05, 0.03, 0.004, 0.004, 0.006]),
            "track.std": np.array([3.0, 3.0, 0.01, 0.01]),
            "lip.embed.weight": rng.normal(0, 0.35, (CODE_INPUTS, LIP_CODE)),
            "lip.embed.bias": rng.normal(0, 0.1, CODE_INPUTS),
            "lip.closed": rng.normal(0, 0.3, LIP_CODE),
            "lip.std": np.ones(LIP_CODE),
            "units.mean": np.full(UNITS, 0.05),
            "units.to_lip": rng.normal(0, 1.0, (UNITS, LIP_CODE)),
            "units.to_expression": np.eye(UNITS, len(EXPRESSIONS)) * 4,
        }
    )
    info = AvatarInfo(
        name=name,
        display_name="Double",
        description="Random Gaussians for tests",
        synthetic=True,
        license="CC0-1.0",
        attribution="the viseme tests",
        created="2026-01-01T00:00:00Z",
        width=size,
        height=size,
        camera=Camera(focal, size / 2, size / 2),
        default_voice="voices/af_heart",
        branches=branches,
        lip_code=LIP_CODE,
        expression_names=EXPRESSIONS,
        torso_pivot=(size / 2, size * 440 / 512),
        audio_encoder="",
        drivers={"units": {"names": unit_names()}},
    )
    across = np.linspace(0, 1, size)
    plate = np.stack([np.add.outer(across, across) * 60 + 90, np.add.outer(across, 0 * across) * 80 + 100], 2)
    plate = np.concatenate([plate, np.full((size, size, 1), 140.0)], 2).astype(np.uint8)
    thumbnail = np.full((256, 256, 3), 128, np.uint8)
    rounded = {key: value.astype(np.float16).astype(np.float32) for key, value in tensors.items()}
    exact = {
        key: value.astype(np.float32)
        for key, value in tensors.items()
        if key.endswith(".xyz") or key.startswith(("pose.", "track.", "lip.closed", "lip.std", "units.mean"))
    }
    return Bundle(info, rounded | exact, plate, thumbnail)


def _add_gaussians(
    tensors: dict[str, Doubles],
    rng: np.random.Generator,
    branch: str,
    xyz: Doubles,
    rgb: Doubles,
    spacing: float,
) -> None:
    count = len(xyz)
    tensors[f"{branch}.xyz"] = xyz
    tensors[f"{branch}.rgb"] = np.clip(rgb + rng.normal(0, 0.05, rgb.shape), 0, 1)
    tensors[f"{branch}.log_scale"] = np.log(spacing * 0.6) + rng.normal(0, 0.35, (count, 3))
    tensors[f"{branch}.quat"] = rng.normal(size=(count, 4))
    tensors[f"{branch}.opacity_logit"] = rng.normal(1.4, 1.0, count)
    if branch != "torso":
        tensors[f"{branch}.sh"] = rng.normal(0, 0.05, (count, 3, 3))


def _add_network(
    tensors: dict[str, Doubles], rng: np.random.Generator, branch: str, info: BranchInfo, motion: float
) -> None:
    def linear(name: str, outputs: int, inputs: int, gain: float = 1.0, bias: bool = True) -> None:
        tensors[f"{branch}.net.{name}.weight"] = rng.normal(0, gain / np.sqrt(inputs), (outputs, inputs))
        if bias:
            tensors[f"{branch}.net.{name}.bias"] = rng.normal(0, 0.1, outputs)

    for level, side in enumerate(info.levels):
        tensors[f"{branch}.grid.{level}"] = rng.normal(0, 0.5, (3, info.channels, side, side))
    linear("encode", info.hidden, info.encoding)
    if info.code:
        linear("code_attention.0", 32, info.encoding)
        linear("code_attention.1", info.code, 32, 0.5)
        linear("code", info.hidden, info.code, bias=False)
    if info.expression:
        linear("expr_attention.0", 16, info.encoding)
        linear("expr_attention.1", info.expression, 16, 0.5)
        linear("expr", info.hidden, info.expression, bias=False)
    linear("hidden", info.hidden, info.hidden)
    linear("out", OUTPUTS, info.hidden, motion)
