"""Checkpoints as the original TalkingGaussian saves them, with random numbers, written without torch.

`pickled` emits the few pickle instructions that `torch.save` does; tests also build damaged and hostile files
of it.
"""

from __future__ import annotations

import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model_hosts.talking_gaussian.bundle import Camera
from model_hosts.talking_gaussian.upstream.bundle import UpstreamBundle, UpstreamInfo, own_shapes
from model_hosts.talking_gaussian.upstream.model import UpstreamModel, expected_shapes

AUDIO_FEATURES = 5
SIZE = 128
PARTS = ("xyz", "sh", "size", "quat", "opacity")
_STORAGES = {
    "float32": "FloatStorage",
    "int32": "IntStorage",
    "int64": "LongStorage",
    "float64": "DoubleStorage",
}


@dataclass
class Raw:
    """Bytes to put into a pickle as they are."""

    code: bytes


@dataclass
class Storages:
    """The numbers of the tensors of a checkpoint."""

    data: list[bytes] = field(default_factory=list)


def pickled(value: Any, storages: Storages) -> bytes:
    """The instructions that put a value on the stack."""
    if isinstance(value, Raw):
        code = value.code
    elif value is None or isinstance(value, bool):
        code = {None: b"N", True: b"\x88", False: b"\x89"}[value]
    elif isinstance(value, int):
        code = b"J" + struct.pack("<i", value)
    elif isinstance(value, float):
        code = b"G" + struct.pack(">d", value)
    elif isinstance(value, str):
        code = b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    elif isinstance(value, tuple):
        code = b"(" + b"".join(pickled(item, storages) for item in value) + b"t"
    elif isinstance(value, list):
        code = b"](" + b"".join(pickled(item, storages) for item in value) + b"e"
    elif isinstance(value, dict):
        start = b"ccollections\nOrderedDict\n)R(" if isinstance(value, OrderedDict) else b"}("
        pairs = (pickled(item, storages) for pair in value.items() for item in pair)
        code = start + b"".join(pairs) + b"u"
    else:
        code = _tensor(value, storages)
    return code


def _tensor(value: np.ndarray, storages: Storages) -> bytes:
    key = str(len(storages.data))
    storages.data.append(np.ascontiguousarray(value).tobytes())
    strides = tuple(stride // value.itemsize for stride in np.ascontiguousarray(value).strides)
    kind = Raw(f"ctorch\n{_STORAGES[value.dtype.name]}\n".encode())
    storage = Raw(pickled(("storage", kind, key, "cpu", value.size), storages) + b"Q")
    arguments = (storage, 0, tuple(value.shape), strides, False, OrderedDict())
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + pickled(arguments, storages) + b"R"


def write_checkpoint(path: Path, value: Any, program: bytes | None = None) -> Path:
    """Writes a file as `torch.save(value)` would; `program` replaces its pickle."""
    storages = Storages()
    code = b"\x80\x02" + pickled(value, storages) + b"."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("chkpnt/data.pkl", code if program is None else program)
        archive.writestr("chkpnt/byteorder", "little")
        for key, data in enumerate(storages.data):
            archive.writestr(f"chkpnt/data/{key}", data)
        archive.writestr("chkpnt/version", "3\n")
    return path


def make_model(
    face: int = 30, mouth: int = 12, seed: int = 0, features: int = AUDIO_FEATURES
) -> UpstreamModel:
    """A model with random weights whose Gaussians form a flat face with a mouth in its middle."""
    rng = np.random.default_rng(seed)
    tensors = {
        name: (rng.normal(0, 0.4, shape) / np.sqrt(max(1, int(np.prod(shape[1:]))))).astype(np.float32)
        for name, shape in expected_shapes(face, mouth, features).items()
    }
    for branch, spread, size in (("face", 0.08, -4.5), ("mouth", 0.03, -5.0)):
        shape = tensors[f"{branch}.xyz"].shape
        tensors[f"{branch}.xyz"] = (rng.uniform(-1, 1, shape) * (spread, spread, 0.02)).astype(np.float32)
        tensors[f"{branch}.size"] += np.float32(size)
        tensors[f"{branch}.quat"] = rng.normal(0, 1.5, (shape[0], 4)).astype(np.float32)
        tensors[f"{branch}.opacity"] = rng.normal(1, 2, shape[0]).astype(np.float32)
        tensors[f"{branch}.sh"] = rng.normal(0, 0.5, (shape[0], 9, 3)).astype(np.float32)
        for plane in ("xy", "yz", "xz"):
            table = tensors[f"{branch}.net.encoder_{plane}.embeddings"]
            table[:] = rng.normal(0, 1, table.shape)
    return UpstreamModel(tensors, features)


def capture(model: UpstreamModel, branch: str, degree: int = 2) -> tuple[Any, ...]:
    """The tuple that the original stores of a branch's Gaussians."""
    xyz, sh, size, quat, opacity = (model.tensors[f"{branch}.{part}"] for part in PARTS)
    count = len(xyz)
    unused = np.zeros((count, 1), np.float32)
    optimiser = {"state": {0: {"exp_avg": np.zeros_like(xyz)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    return (
        *(degree, xyz, sh[:, :1], sh[:, 1:], unused, size, quat, opacity[:, None]),
        *(np.zeros(count, np.float32), unused, unused, optimiser, 1.1),
    )


def network(model: UpstreamModel, branch: str) -> OrderedDict[str, np.ndarray]:
    """The state dict of a branch's network, with what the original keeps beside its weights."""
    prefix = f"{branch}.net."
    own = {
        name.removeprefix(prefix): value for name, value in model.tensors.items() if name.startswith(prefix)
    }
    return OrderedDict(own | {"encoder_xy.offsets": np.arange(13, dtype=np.int32)})


def fused(model: UpstreamModel) -> tuple[Any, ...]:
    """What a chkpnt_fuse file holds."""
    face, mouth = (capture(model, name) for name in ("face", "mouth"))
    return face, network(model, "face"), mouth, network(model, "mouth")


def single(model: UpstreamModel, branch: str) -> tuple[Any, ...]:
    """What a chkpnt_face or chkpnt_mouth file holds."""
    return capture(model, branch), network(model, branch), {"state": {}, "param_groups": []}, 20000


def make_bundle(model: UpstreamModel) -> UpstreamBundle:
    """A bundle of a model with random maps, for a picture of 128 pixels."""
    rng = np.random.default_rng(3)
    tensors = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in own_shapes().items()}
    tensors["pose.mean"] = np.diag([1, -1, -1, 1]).astype(np.float32)
    tensors["pose.mean"][2, 3] = 0.85
    tensors["pose.std"] = np.array([0.03, 0.05, 0.03, 0.002, 0.002, 0.002], np.float32)
    tensors["expression.mean"] = np.array([0.1, 0.5, 0.2, 0.0, 0.4, 0.3], np.float32)
    info = UpstreamInfo(
        name="original",
        display_name="Original",
        description="",
        synthetic=True,
        license="CC0-1.0",
        attribution="nobody",
        created="2026-01-01T00:00:00+00:00",
        width=SIZE,
        height=SIZE,
        camera=Camera(300.0, SIZE / 2, SIZE / 2),
        default_voice="voices/af_heart",
        branches={name: {"count": model.count(name)} for name in ("face", "mouth")},
        audio_features=model.audio_features,
    )
    plate = rng.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8)
    return UpstreamBundle(info, dict(model.tensors) | tensors, plate, np.zeros((256, 256, 3), np.uint8))
