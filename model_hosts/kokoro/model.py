"""Kokoro-82M on onnxruntime: symbols in, samples and the length of every symbol out.

Source: the exported graph of kokoro-onnx (v1.0, int8). The graph computes how many frames every symbol lasts
    and uses that to stretch the encoder's output; the number of frames times 600 is exactly the number of
    samples. We add that inner tensor to the graph's outputs, so the times of the phonemes are those of the
    audio and no estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from model_hosts.kokoro.symbols import SYMBOLS

_DURATIONS: Final = "/encoder/Clip_output_0"
_FLOAT: Final = 1  # onnx.TensorProto.FLOAT


@dataclass(frozen=True, slots=True)
class Utterance:
    """What the model said.

    Attributes:
        audio: [N] float32 samples at 24 kHz, about -1 to 1.
        frames: [S + 2] int64, frames of 600 samples that each symbol lasts; the first and the last belong to
            the silence around the symbols. They add up to N / 600.
    """

    audio: npt.NDArray[np.float32]
    frames: npt.NDArray[np.int64]


class KokoroModel:
    """The network, loaded."""

    def __init__(self, path: Path, threads: int) -> None:
        """Loads the network.

        Args:
            path: The ONNX file.
            threads: Threads of one synthesis.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait in a loop cost a quarter more CPU, which the other hosts need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            with_output(path.read_bytes(), _DURATIONS), options, providers=["CPUExecutionProvider"]
        )

    def run(
        self, symbols: str, styles: npt.NDArray[np.float32], speed: float, options: Any | None = None
    ) -> Utterance:
        """Speaks symbols.

        Args:
            symbols: 1 to 510 characters of `SYMBOLS`.
            styles: [510, 256] the voice: a style for every number of symbols.
            speed: 1 is the voice's natural speed.
            options: Made by `run_options`; setting its `terminate` from another thread stops the run.
        """
        options = options or run_options()
        tokens = np.array([[0, *(SYMBOLS[symbol] for symbol in symbols), 0]], np.int64)
        style = styles[min(len(symbols), len(styles)) - 1].reshape(1, -1)
        audio, durations = self._session.run(
            None, {"tokens": tokens, "style": style, "speed": np.array([speed], np.float32)}, options
        )
        return Utterance(audio.ravel(), durations.ravel().astype(np.int64))


def run_options() -> Any:
    """Options of a run that gives its memory back: 200 MB less than what the longest sentence left behind."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def with_output(model: bytes, name: str) -> bytes:
    """Adds an inner float tensor to the outputs of a serialised ONNX model.

    Protocol Buffers define that the encodings of two messages, one after the other, decode to the two
    messages
    merged: repeated fields are concatenated. So it is enough to append a model whose graph has one output;
        the heavy `onnx` package is not needed.

    Args:
        model: Serialised onnx.ModelProto.
        name: Name of the tensor.
    """
    tensor_type = _field(1, bytes([1 << 3, _FLOAT]))  # TypeProto.tensor_type {elem_type: FLOAT}
    value_info = _field(1, name.encode()) + _field(2, tensor_type)  # ValueInfoProto {name, type}
    return model + _field(7, _field(12, value_info))  # ModelProto.graph {output}


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
