"""The original's audio networks: windows of speech features to one code for each video frame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.upstream.model import BRANCHES, CODE, NEIGHBOURS, WINDOW

FloatArray = npt.NDArray[np.float32]

_SLOPE = np.float32(0.02)


def recorded_codes(tensors: Mapping[str, FloatArray], windows: FloatArray) -> FloatArray:
    """Codes of the face and then of the mouth for every frame of a recording, float32 [T, 64].

    Args:
        tensors: Of a model, by name.
        windows: See `audio_codes`.
    """
    codes = []
    for branch in BRANCHES:
        prefix = f"{branch}.net."
        network = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
        codes.append(audio_codes(network, windows))
    return np.concatenate(codes, 1)


def audio_codes(network: Mapping[str, FloatArray], windows: FloatArray) -> FloatArray:
    """Codes of consecutive frames.

    Each window goes through four strided convolutions and two layers (AudioNet); then the codes of the frames
    i - 4 to i + 3 are averaged with weights that a small network reads from them (AudioAttNet). Windows
    before the first and after the last frame are zeros, as they were in training.

    Args:
        network: Tensors `audio_net.*` and `audio_att_net.*` of a branch, by name.
        windows: float32 [T, 16, C], all frames of the recording.

    Returns:
        float32 [T, 32].

    Raises:
        ValueError: The windows are not of the kind the network was trained on.
    """
    features = network["audio_net.encoder_conv.0.weight"].shape[1]
    if windows.ndim != 3 or windows.shape[1:] != (WINDOW, features):
        raise ValueError(
            f"audio features are {list(windows.shape)}, but must be [frames, {WINDOW}, {features}]"
        )
    past, future = NEIGHBOURS // 2, NEIGHBOURS - NEIGHBOURS // 2 - 1
    padded = np.pad(windows, ((past, future), (0, 0), (0, 0)))
    codes = _encode(network, padded)
    # [T, 32, 8]: the neighbours of each frame.
    around = np.lib.stride_tricks.sliding_window_view(codes, NEIGHBOURS, axis=0)
    weights = _attention(network, around)
    return np.asarray((around * weights[:, None]).sum(2), np.float32)


def _encode(network: Mapping[str, FloatArray], windows: FloatArray) -> FloatArray:
    """One code [32] for each window, before smoothing."""
    values = np.ascontiguousarray(windows.transpose(0, 2, 1), np.float32)
    for layer in (0, 2, 4, 6):
        values = _leaky(_convolve(network, f"audio_net.encoder_conv.{layer}", values, 2))
    hidden = _leaky(_linear(network, "audio_net.encoder_fc1.0", values[:, :, 0]))
    codes = _linear(network, "audio_net.encoder_fc1.2", hidden)
    assert codes.shape[1] == CODE  # noqa: S101 - the model's shapes are checked when it is read
    return codes


def _attention(network: Mapping[str, FloatArray], around: FloatArray) -> FloatArray:
    """Weights [T, 8] of the neighbours [T, 32, 8]."""
    values = around
    for layer in (0, 2, 4, 6, 8):
        values = _leaky(_convolve(network, f"audio_att_net.attentionConvNet.{layer}", values, 1))
    scores = _linear(network, "audio_att_net.attentionNet.0", values[:, 0])
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def _convolve(network: Mapping[str, FloatArray], name: str, values: FloatArray, stride: int) -> FloatArray:
    """A convolution of width 3 with one zero at either end: [T, C, n] to [T, C', n / stride]."""
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1)))
    taps = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=2)[:, :, ::stride]
    out = np.einsum("tcnk,ock->ton", taps, network[f"{name}.weight"], optimize=True)
    return np.asarray(out + network[f"{name}.bias"][:, None], np.float32)


def _linear(network: Mapping[str, FloatArray], name: str, values: FloatArray) -> FloatArray:
    return np.asarray(values @ network[f"{name}.weight"].T + network[f"{name}.bias"], np.float32)


def _leaky(values: FloatArray) -> FloatArray:
    return np.where(values > 0, values, _SLOPE * values)
