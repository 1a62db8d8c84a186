"""Lips: what they cost, and how well they follow audio whose phonemes are known.

Usage (in the environment of the talking_gaussian host):
    python -m benchmarks.lips SPEECH --encoder ASSETS/whisper-base [--json]

SPEECH is a directory written by tools/lips/corpus.py; only its held-out voices and sentences are used.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks._report import Figure, Figures, run
from model_hosts.talking_gaussian.driving.animator import FaceAnimator, FaceTrack, Utterance
from model_hosts.talking_gaussian.driving.articulation import channels, lip_gap
from model_hosts.talking_gaussian.driving.audio_to_lips import AudioListener, LipNetwork
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS
from model_hosts.talking_gaussian.driving.whisper_features import WhisperEncoder
from model_hosts.talking_gaussian.training.lips_data import SAMPLE_RATE, Example, Speech, example, read_speech
from model_hosts.talking_gaussian.training.lips_metrics import CLOSED, bilabial_spans, measure


def accuracy(speech: Sequence[Speech], encoder: WhisperEncoder, network: LipNetwork) -> Figures:
    """Figures of the network on speech it was not trained on."""
    examples: list[Example] = [example(one, encoder, clean=True) for one in speech]
    found = measure(network, examples)
    note = f"{len(speech)} sentences of {len({one.voice for one in speech})} voices, all held out"
    return {
        "opening": Figure(found.opening, "correlation", 0.88, "at least", note),
        "opening range": Figure(found.opening_ratio, "of the truth", 0.8, "at least"),
        "jaw": Figure(found.jaw, "correlation", 0.85, "at least"),
        "rounding": Figure(found.rounding, "correlation", 0.85, "at least"),
        "spreading": Figure(found.spreading, "correlation", 0.85, "at least"),
        "p, b, m that close": Figure(found.bilabial_recall, "share", 0.9, "at least"),
        "closures that are p, b, m": Figure(found.bilabial_precision, "share", 0.75, "at least"),
        "lag": Figure(abs(found.lag_frames), "frames", 1),
    }


def closing(speech: Sequence[Speech]) -> Figures:
    """Figures of the lips that follow phonemes."""
    closed, bilabials = 0, 0
    for one in speech:
        gap = lip_gap(_animated(one, None)[0].units)
        spans = bilabial_spans(one.phones, len(gap))
        closed += sum(bool((gap[first:last] < CLOSED).any()) for first, last in spans)
        bilabials += len(spans)
    return {"p, b, m that close, with phonemes": Figure(closed / bilabials, "share", 1.0, "at least")}


def running(speech: Sequence[Speech], encoder: WhisperEncoder, network: LipNetwork) -> Figures:
    """Closed lips in silence, and CPU of both ways, everything from samples to face units."""
    seconds = sum(len(one.samples) for one in speech) / SAMPLE_RATE
    with_phones = sum(_animated(one, None)[1] for one in speech)
    with_audio, closed = 0.0, []
    for one in speech:
        track, spent = _animated(one, AudioListener(encoder, network, SAMPLE_RATE))
        with_audio += spent
        silent = channels(one.phones, 3, 4 * len(track))[::4, CHANNELS.index("rest")] > 0.9
        closed.append(lip_gap(track.units)[silent] < CLOSED)
    return {
        "silence with closed lips": Figure(float(np.concatenate(closed).mean()), "share", 0.96, "at least"),
        "phonemes to face": Figure(1000 * with_phones / seconds / 25, "CPU ms a frame", 1.0),
        "audio to face": Figure(with_audio / seconds, "CPU s a second", 0.3),
    }


def _animated(one: Speech, listener: AudioListener | None) -> tuple[FaceTrack, float]:
    samples = (np.clip(one.samples, -1.0, 1.0) * 32767.0).astype(np.int16)
    begun = time.process_time()
    animator = FaceAnimator(1, SAMPLE_RATE, listener)
    parts = [animator.push(Utterance(samples, None if listener else one.phones)), animator.finish()]
    return FaceTrack.concatenate(parts), time.process_time() - begun


def measure_all(options: argparse.Namespace) -> Figures:
    """All figures."""
    heard = (read_speech(path) for path in sorted(options.speech.glob("*.npz")))
    speech = list(itertools.islice((one for one in heard if one.held_out), options.sentences))
    encoder, network = WhisperEncoder(options.encoder, 1), LipNetwork.load()
    return accuracy(speech, encoder, network) | closing(speech) | running(speech[:12], encoder, network)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("speech", type=Path)
    parser.add_argument("--encoder", type=Path, required=True, help="the asset whisper-base")
    parser.add_argument("--sentences", type=int, default=60, help="how many at most")
    run("lips", measure_all, parser)


if __name__ == "__main__":
    main()
