"""The original's model: what a checkpoint must hold, by name and shape.

Tensors keep the original's names behind `face.net.` and `mouth.net.`; Gaussians are `BR.xyz` [N, 3] (metres,
head frame), `BR.sh` [N, 9, 3] (harmonics of degree 0 to 2, half grey at 0), `BR.size` [N, 3] (before the
soft-plus), `BR.quat` [N, 4] (wxyz, any length) and `BR.opacity` [N] (logit). All float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.upstream.checkpoint import CheckpointInvalid, StoredTensor, read_checkpoint

FloatArray = npt.NDArray[np.float32]
Tensors = dict[str, FloatArray]

BRANCHES = ("face", "mouth")
CODE = 32
"""Length of an audio code; face and mouth have a code each."""
WINDOW = 16
"""Audio feature steps of a window: those around one video frame."""
NEIGHBOURS = 8
"""Windows that the attention smooths: those of the frames i - 4 to i + 3."""
ACTION_UNITS = ("AU01", "AU04", "AU05", "AU06", "AU07", "AU45")
HARMONICS = 9
LEVELS = 12
BOUND = 0.15
"""Half side of the tri-planes' cube, metres."""
RESOLUTIONS = {"face": (16.0, 38.4), "mouth": (64.0, 57.6)}
"""Cells along a side of the first and the last level."""
ENCODING = 3 * LEVELS
PLANES = ("xy", "yz", "xz")
_MAX_GAUSSIANS = 500_000
_CAPTURE = 13


@dataclass(frozen=True)
class UpstreamModel:
    """A model of the original in memory.

    Attributes:
        tensors: See the head of this module.
        audio_features: Length C of a step of its audio features: 29 for DeepSpeech, 44 for wav2vec 2.
    """

    tensors: Tensors
    audio_features: int

    def count(self, branch: str) -> int:
        """Number of Gaussians of a branch."""
        return len(self.tensors[f"{branch}.xyz"])


def level_sides(branch: str) -> list[tuple[float, int]]:
    """Scale and side in nodes of each tri-plane level: u in 0..1 lies at node u * scale + 0.5."""
    first, last = RESOLUTIONS[branch]
    growth = (last / first) ** (1 / (LEVELS - 1))
    return [(first * growth**level - 1, math.ceil(first * growth**level) + 1) for level in range(LEVELS)]


def level_starts(branch: str) -> list[int]:
    """Where each level begins in a plane's table, and its end; every level is padded to a multiple of 8."""
    starts = [0]
    for _, side in level_sides(branch):
        starts.append(starts[-1] + -(-side * side // 8) * 8)
    return starts


def expected_shapes(face: int, mouth: int, audio_features: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model with so many Gaussians."""
    shapes: dict[str, tuple[int, ...]] = {}
    for branch, count in zip(BRANCHES, (face, mouth), strict=True):
        own: dict[str, tuple[int, ...]] = {
            "xyz": (count, 3),
            "sh": (count, HARMONICS, 3),
            "size": (count, 3),
            "quat": (count, 4),
            "opacity": (count,),
        }
        own |= {f"net.{name}": shape for name, shape in _network(branch, audio_features).items()}
        shapes |= {f"{branch}.{name}": shape for name, shape in own.items()}
    return shapes


def _network(branch: str, audio_features: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *weight: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    convolutions: dict[str, tuple[int, ...]] = {
        "audio_net.encoder_conv": (audio_features, 32, 32, 64, 64),
        "audio_att_net.attentionConvNet": (CODE, 16, 8, 4, 2, 1),
    }
    for prefix, widths in convolutions.items():
        for index in range(len(widths) - 1):
            layer(f"{prefix}.{2 * index}", widths[index + 1], widths[index], 3)
    layer("audio_net.encoder_fc1.0", 64, 64)
    layer("audio_net.encoder_fc1.2", CODE, 64)
    layer("audio_att_net.attentionNet.0", NEIGHBOURS, NEIGHBOURS)
    for plane in PLANES:
        shapes[f"encoder_{plane}.embeddings"] = (level_starts(branch)[-1], 1)
    perceptrons: dict[str, tuple[int, ...]] = {"sigma_net": (ENCODING + CODE, 32, 32, 3)}
    if branch == "face":
        perceptrons = {
            "sigma_net": (ENCODING + CODE + len(ACTION_UNITS), 64, 64, 11),
            "aud_ch_att_net": (ENCODING, 32, CODE),
            "eye_att_net": (ENCODING, 16, len(ACTION_UNITS)),
            "exp_encode_net": (5, 16, 5),
        }
    for name, widths in perceptrons.items():
        for index in range(len(widths) - 1):
            shapes[f"{name}.net.{index}.weight"] = (widths[index + 1], widths[index])
    return shapes


def read_model(paths: Sequence[Path]) -> UpstreamModel:
    """Reads a model from the fused checkpoint alone, or from those of the face and of the mouth.

    Raises:
        CheckpointInvalid: A file cannot be used, or together they are no whole model.
    """
    parts: dict[str, tuple[Any, Any]] = {}
    for path in paths:
        for branch, part in _parts(path).items():
            if branch in parts:
                raise CheckpointInvalid(f"{path.name} brings the {branch} a second time")
            parts[branch] = part
    if missing := [branch for branch in BRANCHES if branch not in parts]:
        raise CheckpointInvalid(
            f"{', '.join(path.name for path in paths)}: the {missing[0]} is missing; "
            "give the chkpnt_fuse file, or both the chkpnt_face and the chkpnt_mouth file"
        )
    tensors: Tensors = {}
    for branch, (capture, network) in parts.items():
        tensors |= _gaussians(branch, capture)
        tensors |= {
            f"{branch}.net.{name}": _floats(value, f"{branch}: {name}")
            for name, value in network.items()
            if isinstance(value, StoredTensor) and not str(name).endswith(".offsets")
        }
    first = tensors.get("face.net.audio_net.encoder_conv.0.weight")
    if first is None or first.ndim != 3:
        raise CheckpointInvalid("the face has no audio network")
    shapes = expected_shapes(len(tensors["face.xyz"]), len(tensors["mouth.xyz"]), first.shape[1])
    # The mouth also carries layers that its network never uses.
    model = UpstreamModel({name: tensors[name] for name in shapes if name in tensors}, first.shape[1])
    check_tensors(model.tensors, shapes)
    return model


def check_tensors(tensors: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Checks names, shapes and finiteness.

    Raises:
        CheckpointInvalid: The first things that are wrong, each by name.
    """
    wrong = [f"{name} is missing" for name in shapes if name not in tensors]
    for name, shape in shapes.items():
        if name in tensors and tensors[name].shape != shape:
            wrong.append(f"{name} is {list(tensors[name].shape)}, but must be {list(shape)}")
        elif name in tensors and not np.isfinite(tensors[name]).all():
            wrong.append(f"{name} has numbers that are not finite")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointInvalid("; ".join(wrong[:3]) + more)


def _parts(path: Path) -> dict[str, tuple[Any, Any]]:
    """The pairs of Gaussians and network that a checkpoint holds."""
    content = read_checkpoint(path)
    if isinstance(content, tuple) and len(content) == 4 and isinstance(content[1], dict):
        if isinstance(content[2], tuple) and isinstance(content[3], dict):
            return {"face": (content[0], content[1]), "mouth": (content[2], content[3])}
        if isinstance(content[2], dict):
            branch = "face" if "exp_encode_net.net.0.weight" in content[1] else "mouth"
            return {branch: (content[0], content[1])}
    raise CheckpointInvalid(f"{path.name} is a PyTorch checkpoint, but none of TalkingGaussian's")


def _gaussians(branch: str, capture: Any) -> Tensors:
    if not isinstance(capture, tuple) or len(capture) != _CAPTURE or not isinstance(capture[0], int):
        raise CheckpointInvalid(
            f"the Gaussians of the {branch} are not stored as TalkingGaussian stores them"
        )
    degree, xyz, base, rest, _identity, size, quat, opacity = capture[:8]
    xyz = _floats(xyz, f"{branch}.xyz")
    count = len(xyz)
    if not 1 <= count <= _MAX_GAUSSIANS:
        raise CheckpointInvalid(f"the {branch} has {count} Gaussians; 1 to {_MAX_GAUSSIANS} are possible")
    harmonics = [_floats(base, f"{branch} colours"), _floats(rest, f"{branch} harmonics")]
    if [part.shape for part in harmonics] != [(count, 1, 3), (count, HARMONICS - 1, 3)]:
        raise CheckpointInvalid(f"the {branch} has colours of another degree than 2")
    sh = np.concatenate(harmonics, 1)
    # Degrees that the training had not switched on yet are not drawn.
    sh[:, (max(degree, 0) + 1) ** 2 :] = 0
    opacity = _floats(opacity, f"{branch}.opacity")
    if opacity.shape != (count, 1):
        raise CheckpointInvalid(f"{branch}.opacity is {list(opacity.shape)}, but must be {[count, 1]}")
    parts = {
        "xyz": xyz,
        "sh": sh,
        "size": _floats(size, f"{branch}.size"),
        "quat": _floats(quat, f"{branch}.quat"),
        "opacity": opacity[:, 0],
    }
    return {f"{branch}.{name}": np.ascontiguousarray(value) for name, value in parts.items()}


def _floats(value: Any, name: str) -> FloatArray:
    if not isinstance(value, StoredTensor):
        raise CheckpointInvalid(f"{name} is no tensor")
    return np.asarray(value.array(), np.float32)
