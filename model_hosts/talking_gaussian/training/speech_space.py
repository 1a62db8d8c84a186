"""Finds what of Whisper's features tells sounds apart in any voice: a linear discriminant analysis.

Usage (in the environment of the talking_gaussian host):
    python -m model_hosts.talking_gaussian.training.speech_space SPEECH --encoder ASSETS/whisper-base

SPEECH is a directory written by tools/lips/corpus.py. Writes speech_space.safetensors beside this file.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from model_hosts.talking_gaussian.driving.articulation import Phone
from model_hosts.talking_gaussian.driving.phonemes import GESTURES, gestures_of
from model_hosts.talking_gaussian.driving.whisper_features import FEATURE_RATE, WhisperEncoder
from model_hosts.talking_gaussian.training.adaptation import SPEECH_SPACE
from model_hosts.talking_gaussian.training.lips_data import Speech, augmented, example, joined, read_speech

_log = logging.getLogger(__name__)

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SIZE = 32
_SHRINKAGE = 1.0
"""Of the covariance within sounds towards a round one of the same size."""
_COMMON = 3000
"""Moments of a sound beyond which it counts no more."""
_NAMES = sorted(GESTURES)


def discriminants(features: Doubles, sounds: Integers, size: int) -> Doubles:
    """Directions `[F, size]` that tell sounds apart, scaled by how well each does.

    Args:
        features: `[N, F]`.
        sounds: What each is, `[N]`, 0 and up.
        size: Number of directions.
    """
    moved = features - features.mean(0)
    counts = np.bincount(sounds).astype(np.float64)
    means = np.zeros((len(counts), moved.shape[1]))
    np.add.at(means, sounds, moved)
    means /= np.maximum(counts, 1.0)[:, None]
    within = moved.T @ moved / len(moved) - (means * counts[:, None]).T @ means / counts.sum()
    within += _SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within))
    shares = np.minimum(counts, _COMMON) / np.minimum(counts, _COMMON).sum()
    between = (means * shares[:, None]).T @ means
    values, axes = np.linalg.eigh(within)
    whitened = axes / np.sqrt(values)
    ratios, turned = np.linalg.eigh(whitened.T @ between @ whitened)
    ratios, turned = np.maximum(ratios[::-1][:size], 0.0), turned[:, ::-1][:, :size]
    return np.asarray(whitened @ turned * np.sqrt(ratios / (1.0 + ratios)))


def sounds_of(phones: Sequence[Phone], count: int) -> Integers:
    """The sound at each of `count` features, an index; -1 where there is none."""
    found = np.full(count, -1)
    times = (np.arange(count) + 0.5) / FEATURE_RATE
    for phone in phones:
        names = gestures_of(phone.symbol)
        cuts = np.linspace(phone.start, phone.end, len(names) + 1)
        for name, begin, end in zip(names, cuts[:-1], cuts[1:], strict=True):
            found[(times >= begin) & (times < end)] = _NAMES.index(name)
    return found


def heard(speech: Sequence[Speech], encoder: WhisperEncoder, seed: int) -> tuple[Doubles, Integers]:
    """Features and sounds of every voice, once clean and once in another room."""
    random = np.random.default_rng(seed)
    features, sounds = [], []
    for voice in sorted({one.voice for one in speech}):
        own = [one for one in speech if one.voice == voice]
        stretch = joined([own[index] for index in random.permutation(len(own))], random)
        for clean, spoken in ((True, stretch), (False, augmented(stretch, random))):
            made = example(spoken, encoder, clean)
            features.append(made.features.astype(np.float64))
            sounds.append(sounds_of(made.phones, len(made.features)))
        _log.info("heard %s", voice)
    found = np.concatenate(sounds)
    return np.concatenate(features)[found >= 0], found[found >= 0]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("speech", type=Path)
    parser.add_argument("--encoder", type=Path, required=True, help="the asset whisper-base")
    parser.add_argument("--out", type=Path, default=SPEECH_SPACE)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    speech = [read_speech(path) for path in sorted(options.speech.glob("*.npz"))]
    training = [one for one in speech if not one.held_out]
    features, sounds = heard(training, WhisperEncoder(options.encoder, options.threads), seed=1)
    made = {"moments": len(sounds), "voices": len({one.voice for one in training}), "encoder": "whisper-base"}
    weight = discriminants(features, sounds, SIZE).astype(np.float16)
    metadata = {name: json.dumps(value) for name, value in made.items()}
    safetensors.numpy.save_file({"weight": weight}, options.out, metadata)
    _log.info("%s", json.dumps(made))


if __name__ == "__main__":
    main()
