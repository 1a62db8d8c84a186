"""Reads PyTorch checkpoint files without torch and without running what is in them.

A checkpoint is a .zip of one pickle, which describes the objects, and one file for each tensor's numbers. A
pickle is a program: this reader knows the few instructions and the few names that `torch.save` writes for
tensors, numbers and containers, gives each name an inert stand-in, and refuses everything else.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]

_MAX_PICKLE = 4 << 20
_ZIP_ERRORS = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error)
"""What zipfile raises on damaged files."""
_MAX_STORAGE = 1 << 30
_OPCODES = frozenset(
    {"PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID"}
    | {"BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
    | {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
    | {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"}
)
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_SCALARS = {"f8": "<f8", "f4": "<f4", "i8": "<i8", "i4": "<i4"}


class CheckpointInvalid(ValueError):  # noqa: N818 - reads as a statement, like BundleInvalid
    """The checkpoint cannot be used; the message says which file and what is wrong with it."""


@dataclass(frozen=True)
class _Storage:
    """Numbers of one or several tensors, not yet read."""

    type: str
    count: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint; its numbers are read when they are asked for."""

    shape: tuple[int, ...]
    _storage: _Storage
    _offset: int

    def array(self) -> AnyArray:
        """The numbers.

        Raises:
            CheckpointInvalid: They are missing or damaged.
        """
        values = np.frombuffer(self._storage.read(), self._storage.type)
        return values[self._offset : self._offset + math.prod(self.shape)].reshape(self.shape)


class _StateDict(dict[Any, Any]):
    """Stands in for OrderedDict; the attributes that torch hangs on it are dropped."""

    def __setstate__(self, state: object) -> None:
        """Ignores `_metadata`."""


class _Dtype:
    """Stands in for numpy.dtype."""

    def __init__(self, code: object, *_: object) -> None:
        self.type = _SCALARS[str(code)]

    def __setstate__(self, state: object) -> None:
        """The byte order; a file with another than little-endian is refused elsewhere."""


def read_checkpoint(path: Path) -> Any:
    """Reads what `torch.save` wrote: tuples, lists, dicts, numbers, and `StoredTensor` for tensors.

    Raises:
        CheckpointInvalid: The file is missing, damaged, of another kind, or holds anything but such data.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise CheckpointInvalid(f"{path.name} cannot be read ({error.strerror or error})") from error
    except _ZIP_ERRORS as error:
        raise CheckpointInvalid(f"{path.name} is no PyTorch checkpoint, or it is cut short") from error
    names = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(names) != 1:
        raise CheckpointInvalid(f"{path.name} is no PyTorch checkpoint: it has {len(names)} data.pkl")
    root = names[0].removesuffix("data.pkl")
    file = _File(path.name, archive, root)
    if f"{root}byteorder" in archive.namelist() and file.read("byteorder", 16) != b"little":
        raise CheckpointInvalid(f"{path.name} is not little-endian")
    program = file.read("data.pkl", _MAX_PICKLE)
    _check_opcodes(path.name, program)
    try:
        return _Unpickler(program, file).load()
    except CheckpointInvalid:
        raise
    except Exception as error:  # whatever a damaged program makes the machine stumble over
        raise CheckpointInvalid(f"{path.name} is damaged ({error})") from error


@dataclass(frozen=True)
class _File:
    """The .zip behind a checkpoint."""

    name: str
    archive: zipfile.ZipFile
    root: str

    def read(self, member: str, limit: int) -> bytes:
        """The bytes of a member.

        Raises:
            CheckpointInvalid: It is missing, damaged, packed or larger than `limit` bytes.
        """
        try:
            info = self.archive.getinfo(self.root + member)
        except KeyError:
            raise CheckpointInvalid(f"{self.name} lacks {member}") from None
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
            raise CheckpointInvalid(f"{self.name}: {member} is packed, or larger than {limit} bytes")
        try:
            return self.archive.read(info)
        except (OSError, *_ZIP_ERRORS) as error:
            raise CheckpointInvalid(f"{self.name}: {member} is damaged ({error})") from error


def _check_opcodes(name: str, program: bytes) -> None:
    """Refuses instructions that `torch.save` does not write, and memo slots far out, which cost memory."""
    puts = 0
    try:
        for opcode, argument, _ in pickletools.genops(program):
            if opcode.name not in _OPCODES:
                raise CheckpointInvalid(
                    f"{name} holds the instruction {opcode.name}, which no checkpoint needs"
                )
            if opcode.name in {"BINPUT", "LONG_BINPUT"}:
                if cast(int, argument) > puts:
                    raise CheckpointInvalid(f"{name} is damaged (memo slot {argument})")
                puts += 1
    except CheckpointInvalid:
        raise
    except Exception as error:  # pickletools raises ValueError, KeyError or UnicodeError on damage
        raise CheckpointInvalid(f"{name} is damaged ({error})") from error


class _Unpickler(pickle.Unpickler):
    """Builds the objects from stand-ins."""

    def __init__(self, program: bytes, file: _File) -> None:
        super().__init__(io.BytesIO(program), encoding="latin1")
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise CheckpointInvalid(
                f"{self._file.name} wants to use {module}.{name}, which no checkpoint of tensors needs; "
                "it was not run"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, count = pid
        if kind != "storage" or dtype not in _STORAGES.values() or not str(key).isdecimal():
            raise CheckpointInvalid(f"{self._file.name} holds a storage of an unknown kind")
        size = int(count) * np.dtype(dtype).itemsize
        if not 0 <= size <= _MAX_STORAGE:
            raise CheckpointInvalid(f"{self._file.name} holds a tensor of {size} bytes")
        file = self._file

        def read() -> bytes:
            data = file.read(f"data/{key}", _MAX_STORAGE)
            if len(data) != size:
                raise CheckpointInvalid(f"{file.name}: data/{key} has {len(data)} bytes, not {size}")
            return data

        return _Storage(dtype, int(count), read)


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> StoredTensor:
    shape = tuple(int(side) for side in size)
    if not isinstance(storage, _Storage) or min(shape, default=0) < 0 or len(stride) != len(shape):
        raise ValueError("a tensor has no numbers or an impossible shape")
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if 0 not in shape and any(
        have != want and side != 1 for have, want, side in zip(stride, steps, shape, strict=True)
    ):
        raise ValueError("a tensor is not stored in one piece")
    if offset < 0 or offset + math.prod(shape) > storage.count:
        raise ValueError("a tensor reaches beyond its storage")
    return StoredTensor(shape, storage, int(offset))


def _rebuild_parameter(tensor: StoredTensor, *_: object) -> StoredTensor:
    return tensor


def _scalar(dtype: _Dtype, data: bytes) -> float:
    return float(np.frombuffer(data, dtype.type)[0])


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes are encoded as {encoding}")
    return text.encode(encoding)


_STAND_INS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): _StateDict,
    ("numpy", "dtype"): _Dtype,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
}
