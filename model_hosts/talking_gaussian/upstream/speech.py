"""What our own listener hears in a recording: features for the export, face units for the import."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.animator import FaceAnimator, FaceTrack, Utterance
from model_hosts.talking_gaussian.driving.audio_to_lips import AudioListener, LipNetwork
from model_hosts.talking_gaussian.driving.whisper_features import (
    FEATURE_RATE,
    SAMPLE_RATE,
    FeatureStream,
    WhisperEncoder,
)
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid

FloatArray = npt.NDArray[np.float32]

FEATURES = 29
"""Length of a step of exported features: that of DeepSpeech's, which upstream's data loader expects."""


def read_speech(path: Path) -> npt.NDArray[np.int16]:
    """Decodes the first audio track of a file to mono at 16 kHz.

    Raises:
        DatasetInvalid: The file has none, or is damaged.
    """
    try:
        with av.open(str(path)) as container:
            resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
            stream = container.streams.audio[0]
            pieces = [
                piece.to_ndarray()[0]
                for frame in [*container.decode(stream), None]
                for piece in resampler.resample(frame)
            ]
    except (OSError, av.FFmpegError, IndexError) as error:
        raise DatasetInvalid(f"{path.name} cannot be read as audio ({error})") from error
    if not pieces:
        raise DatasetInvalid(f"{path.name} holds no sound")
    return np.concatenate(pieces).astype(np.int16)


def load_encoder(directory: Path) -> WhisperEncoder:
    """The encoder in the directory of the asset whisper-base.

    Raises:
        DatasetInvalid: CTranslate2 is missing, or the directory holds no encoder.
    """
    try:
        return WhisperEncoder(directory, 1)
    except ImportError as error:
        raise DatasetInvalid("listening needs CTranslate2: pip install ctranslate2") from error
    except RuntimeError as error:
        raise DatasetInvalid(f"{directory.name} holds no Whisper encoder ({error})") from error


def heard_units(samples: npt.NDArray[np.int16], encoder: WhisperEncoder, count: int) -> FloatArray:
    """Face units [count, 52] as the driver gives them for this speech: what an avatar will be asked for.

    Args:
        samples: 16 kHz.
        encoder: Whisper base.
        count: Video frames.
    """
    listener = AudioListener(encoder, LipNetwork.load(), SAMPLE_RATE)
    animator = FaceAnimator(0, SAMPLE_RATE, listener)
    pieces = [animator.push(Utterance(samples, None, True, False)), animator.finish()]
    units = FaceTrack.concatenate(pieces).units
    # A picture may go on a little longer than its sound.
    return np.asarray(units[np.minimum(np.arange(count), len(units) - 1)], np.float32)


def speech_features(
    samples: npt.NDArray[np.int16],
    encoder: WhisperEncoder,
    count: int,
    like: tuple[npt.NDArray[np.int16], int] | None = None,
) -> FloatArray:
    """The 29 strongest principal components of Whisper's features, each of unit deviation.

    Args:
        samples: 16 kHz.
        encoder: Whisper base.
        count: Video frames.
        like: Other speech and its video frames, whose components are taken: what was trained on them
            understands no others.

    Returns:
        float32 [2 * count, 29], 50 a second, for `export.audio_windows`.
    """
    features = _heard(samples, encoder, count)
    known = features if like is None else _heard(like[0], encoder, like[1])
    mean = known.mean(0)
    _, _, axes = np.linalg.svd(known - mean, full_matrices=False)
    deviation = np.maximum(((known - mean) @ axes[:FEATURES].T).std(0), 1e-6)
    return np.asarray((features - mean) @ axes[:FEATURES].T / deviation, np.float32)


def _heard(samples: npt.NDArray[np.int16], encoder: WhisperEncoder, count: int) -> npt.NDArray[np.float64]:
    stream = FeatureStream(encoder, SAMPLE_RATE)
    stream.push(samples)
    return stream.features(0, count * FEATURE_RATE // 25).astype(np.float64)
