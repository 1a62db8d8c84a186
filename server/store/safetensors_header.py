"""Reads and checks the header of a .safetensors file without loading a tensor.

The format: 8 bytes little-endian length, that many bytes of JSON, then the tensors' bytes without gaps
(huggingface/safetensors, README "Format"). The header holds, by name, `dtype`, `shape` and `data_offsets`
counted from the end of the header, and optionally `__metadata__`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

_ITEM_BYTES: Final = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_MAX_HEADER_BYTES: Final = 4 * 1024**2
_MAX_TENSORS: Final = 4096


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a file.

    Args:
        path: The .safetensors file.

    Raises:
        ValueError: The header is damaged, or does not describe the bytes after it; the message says how.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError("its header is cut off")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise ValueError("its header is not JSON") from None
    if not isinstance(header, dict):
        raise ValueError("its header is not a table")
    header.pop("__metadata__", None)
    if len(header) > _MAX_TENSORS:
        raise ValueError("it holds too many tensors")
    spans = sorted((_span(name, entry), name) for name, entry in header.items())
    position = 0
    for (start, end), name in spans:
        if start != position:
            raise ValueError(f"the bytes of tensor {name!r} do not follow those before it")
        position = end
    if position != size - 8 - length:
        raise ValueError("its tensors do not fill the file; it is cut off or has something after its end")
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor's bytes are, once they are known to be as many as its shape takes."""
    wrong = ValueError(f"the entry of tensor {name[:80]!r} is wrong")
    if not isinstance(entry, dict):
        raise wrong
    item = _ITEM_BYTES.get(str(entry.get("dtype")))
    shape, offsets = _naturals(entry.get("shape")), _naturals(entry.get("data_offsets"))
    if item is None or shape is None or offsets is None or len(offsets) != 2:
        raise wrong
    start, end = offsets
    if end - start != item * math.prod(shape):
        raise wrong
    return start, end


def _naturals(value: Any) -> list[int] | None:
    """The value when it is a short list of whole numbers from 0 on, else None."""
    if not isinstance(value, list) or len(value) > 8:
        return None
    if not all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**48 for item in value):
        return None
    return value
