"""The end of a training: the avatar is measured, hears with its person's lips, and is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model_hosts.talking_gaussian.bundle import Bundle
from model_hosts.talking_gaussian.driving.audio_to_lips import LipNetwork
from model_hosts.talking_gaussian.driving.whisper_features import SAMPLE_RATE, WhisperEncoder
from model_hosts.talking_gaussian.preprocess.dataset import TrainingSet
from model_hosts.talking_gaussian.preprocess.lips import gap_and_width
from model_hosts.talking_gaussian.preprocess.sound import read_wav
from model_hosts.talking_gaussian.training.adaptation import LEAST_FRAMES, Adaptation, fit_lips
from model_hosts.talking_gaussian.training.evaluate import evaluate
from model_hosts.talking_gaussian.training.export import Card, export_bundle
from model_hosts.talking_gaussian.training.trainer import Trainer

_SOME = 16
"""Every so many-th training frame is measured as well."""


def finish(
    trainer: Trainer, recording: Path, card: Card, path: Path, encoder: Path | None, threads: int = 1
) -> tuple[Bundle, dict[str, float]]:
    """Measures the avatar, fits its lips to the person's own speech, and writes the bundle.

    Args:
        trainer: Has trained it.
        recording: Directory of the recording.
        card: What the bundle says about the avatar.
        path: Bundle directory or .zip to write.
        encoder: Directory of the asset `whisper-base`; without it the lips move as everybody's do.
        threads: That the encoder may use.

    Returns:
        The bundle, and its figures: those of held-out frames, and with `training_` those of training frames.

    Raises:
        BundleInvalid: The trained values cannot be stored.
    """
    data = trainer.data
    metrics = evaluate(trainer, data.held_out)
    some = evaluate(trainer, data.training[::_SOME])
    metrics |= {f"training_{name}": value for name, value in some.items()}
    lips = None if encoder is None else adapt(data, recording, encoder, threads)
    return export_bundle(trainer, card, metrics, path, lips), metrics


def adapt(data: TrainingSet, recording: Path, encoder: Path, threads: int = 1) -> Adaptation | None:
    """The lips of a recorded person.

    None for a drawn one, whose mouth the phonemes move, and where a clip is too short to learn from.

    Args:
        data: The recording.
        recording: Its directory.
        encoder: Directory of the asset `whisper-base`.
        threads: That the encoder may use.
    """
    with np.load(recording / "truth.npz", allow_pickle=False) as truth:
        if "landmarks" not in truth.files or len(data.training) < LEAST_FRAMES:
            return None
        opening = gap_and_width(truth["landmarks"])[:, 0]
    return fit_lips(
        read_wav(recording / "audio.wav"),
        SAMPLE_RATE,
        data.lip,
        opening,
        data.training,
        WhisperEncoder(encoder, threads),
        LipNetwork.load(),
    )
