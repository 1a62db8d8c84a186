"""Lips of a recorded person: how well they follow speech that the fit has not seen.

Usage (in the environment of the talking_gaussian host):
    python -m benchmarks.personal_lips DATA --encoder ASSETS/whisper-base [--speech SPEECH] [--json]

DATA is the directory of the test data: the last 4 s of its German clip are held out. SPEECH is a directory
written by tools/lips/corpus.py; its held-out voices are the strangers who drive the same lips.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from benchmarks._report import Figure, Figures, run
from model_hosts.talking_gaussian.driving.animator import FaceAnimator, FaceTrack, Utterance
from model_hosts.talking_gaussian.driving.articulation import Phone, channels
from model_hosts.talking_gaussian.driving.audio_to_lips import AudioListener, LipNetwork
from model_hosts.talking_gaussian.driving.performance import FPS
from model_hosts.talking_gaussian.driving.personal_lips import PersonalLips
from model_hosts.talking_gaussian.driving.phonemes import CHANNELS, SILENCE
from model_hosts.talking_gaussian.driving.whisper_features import SAMPLE_RATE, WhisperEncoder
from model_hosts.talking_gaussian.training import lips_data
from model_hosts.talking_gaussian.training.adaptation import fit_lips
from model_hosts.talking_gaussian.training.landmark_metrics import (
    LandmarkDecoder,
    MouthLayout,
    measure_landmarks,
)
from model_hosts.talking_gaussian.training.lips_data import Speech, read_speech
from model_hosts.talking_gaussian.training.lips_metrics import bilabial_spans

Doubles = npt.NDArray[np.float64]
Samples = npt.NDArray[np.int16]

TRAINING = 400
"""Frames of the German clip that are learned from; the rest is held out, always."""
LAYOUT = MouthLayout(upper=35, lower=25, corners=(0, 9), lips=tuple(range(40)))
"""Of the landmarks in lip.npz: 20 of the outer and 20 of the inner margins, then the chin."""
_INNER_WEIGHT = 2.0
_CLOSED = 0.25
"""Lips look closed when their opening is less than this share of the usual one above the closed."""


@dataclass(frozen=True)
class Recording:
    """The German clip.

    Attributes:
        samples: Its sound, 16 kHz.
        codes: Lip codes `[T, L]`.
        points: Un-posed landmarks `[T, P, 2]`, pixels at 512.
        sketch: Lip codes that the prototype predicted, `[T, L]`.
    """

    samples: Samples
    codes: Doubles
    points: Doubles
    sketch: Doubles


def read_recording(data: Path) -> Recording:
    """Reads the clip's sound and landmarks (in IMAGE mode, as eight principal components)."""
    with np.load(data / "german_preprocessed" / "lip.npz") as file:
        codes = file["C"].astype(np.float64)
        flat = codes * file["sd"] @ file["basis"] + file["mu"]
    with np.load(data / "german_preprocessed" / "lip_best.npz") as file:
        sketch = file["pred"].astype(np.float64)
    points = flat.reshape(len(codes), -1, 2)
    points[:, 20:40] /= _INNER_WEIGHT
    return Recording(read_sound(data / "video" / "German_20s.mp4"), codes, points, sketch)


def read_sound(path: Path) -> Samples:
    """The sound of a file, mono at 16 kHz."""
    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
    with av.open(str(path)) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *resampler.resample(None)]])


def held_out_figures(found: npt.ArrayLike, truth: npt.ArrayLike, layout: MouthLayout) -> Figures:
    """What the issue asks of lips that follow the audio alone; landmarks `[T, P, 2]` in pixels at 512."""
    metrics = measure_landmarks(found, truth, layout)
    return {
        "opening": Figure(metrics.opening, "correlation", 0.80, "at least"),
        "opening range, least": Figure(metrics.opening_ratio, "of the truth", 0.85, "at least"),
        "opening range, most": Figure(metrics.opening_ratio, "of the truth", 1.15),
        "width": Figure(metrics.width, "correlation", 0.55, "at least"),
        "width range": Figure(metrics.width_ratio, "of the truth"),
        "lag": Figure(abs(metrics.lag_frames), "frames", 1),
        "lip distance, centred": Figure(metrics.distance, "px", 1.6),
        "lip distance, in place": Figure(metrics.distance_in_place, "px"),
    }


def compared(name: str, found: Doubles, truth: Doubles) -> Figures:
    """The same of other lips, without bounds."""
    metrics = measure_landmarks(found, truth, LAYOUT)
    return {
        f"{name}: opening": Figure(metrics.opening, "correlation"),
        f"{name}: opening range": Figure(metrics.opening_ratio, "of the truth"),
        f"{name}: width": Figure(metrics.width, "correlation"),
        f"{name}: lip distance": Figure(metrics.distance, "px"),
    }


@dataclass(frozen=True)
class Actor:
    """The person's lips, driven by anyone.

    Attributes:
        lips: The person's.
        at_rest: Code of the closed mouth.
        encoder: Whisper.
        network: The universal network.
    """

    lips: PersonalLips
    at_rest: Doubles
    encoder: WhisperEncoder
    network: LipNetwork

    def follow(self, samples: Samples, sample_rate: int, phones: Sequence[Phone] | None) -> Doubles:
        """Lip codes `[T, L]`, as the driver makes them."""
        listener = None
        if phones is None:
            listener = AudioListener(self.encoder, self.network, sample_rate, self.lips)
        animator = FaceAnimator(1, sample_rate, listener)
        track = FaceTrack.concatenate([animator.push(Utterance(samples, phones)), animator.finish()])
        return self.lips.driven(track, self.at_rest)


def strangers(actor: Actor, speech: Sequence[Speech], codes: Doubles) -> Figures:
    """Figures of other voices that drive the person's lips, by their sound and by their phonemes."""
    opening = actor.lips.opening
    limit = opening.levels[1] + _CLOSED * (opening.levels[3] - opening.levels[1])
    figures: Figures = {}
    for way in ("audio", "phonemes"):
        closed, bilabials, by_chance, quiet, found = 0, 0, [], [], []
        for one in speech:
            code = actor.follow(*_between_silences(one, with_phones=way == "phonemes"))
            gap = opening.of(code)
            quiet.append(np.concatenate([gap[: FPS // 2], gap[-FPS // 2 :]]))
            gap = gap[FPS:-FPS]
            spans = bilabial_spans(one.phones, len(gap))
            closed += sum(bool(gap[first:last].min() < limit) for first, last in spans)
            bilabials += len(spans)
            rest = channels(one.phones, 3, 4 * len(gap))[::4, CHANNELS.index("rest")]
            lengths = [last - first for first, last in spans] or [1]
            windows = np.lib.stride_tricks.sliding_window_view(gap, round(float(np.mean(lengths))))
            by_chance.append((windows.min(1) < limit)[rest[: len(windows)] < 0.5])
            found.append(gap[rest < 0.5])
        spread = float(np.concatenate(found).std() / opening.of(codes).std())
        note = f"{float(np.concatenate(by_chance).mean()):.2f} of other spans of the length"
        figures |= {
            f"strangers by {way}: p, b, m that close": Figure(closed / bilabials, "share", note=note),
            f"strangers by {way}: opening range": Figure(spread, "of the clip's"),
            f"strangers by {way}: silence closed": Figure(
                float((np.concatenate(quiet) < limit).mean()), "share"
            ),
        }
    return figures


def _between_silences(one: Speech, with_phones: bool) -> tuple[Samples, int, list[Phone] | None]:
    """The speech with a second of silence before and after it."""
    rate, seconds = lips_data.SAMPLE_RATE, len(one.samples) / lips_data.SAMPLE_RATE
    spoken = (np.clip(one.samples, -1.0, 1.0) * 32767.0).astype(np.int16)
    samples = np.concatenate([np.zeros(rate, np.int16), spoken, np.zeros(rate, np.int16)])
    if not with_phones:
        return samples, rate, None
    moved = [Phone(phone.symbol, phone.start + 1.0, phone.end + 1.0, phone.stress) for phone in one.phones]
    silences = Phone(SILENCE, 0.0, 1.0), Phone(SILENCE, seconds + 1.0, seconds + 2.0)
    return samples, rate, [silences[0], *moved, silences[1]]


def measure_all(options: argparse.Namespace) -> Figures:
    """All figures."""
    recording = read_recording(options.data)
    encoder, network = WhisperEncoder(options.encoder, options.threads), LipNetwork.load()
    gap = LAYOUT.opening(recording.points)
    training = np.arange(TRAINING)
    fitted = fit_lips(recording.samples, SAMPLE_RATE, recording.codes, gap, training, encoder, network)
    shut = np.argsort(gap[:TRAINING])[: TRAINING // 20]
    actor = Actor(fitted.lips, np.median(recording.codes[shut], 0), encoder, network)
    decoder = LandmarkDecoder(recording.codes[:TRAINING], recording.points[:TRAINING])
    code = actor.follow(recording.samples, SAMPLE_RATE, None)[: len(gap)]
    truth = recording.points[TRAINING:]
    listener = AudioListener(encoder, network, SAMPLE_RATE)
    listener.push(recording.samples)
    universal = fitted.lips.spoken(listener.channels(0, len(gap)), actor.at_rest)
    silent = actor.follow(np.zeros(2 * SAMPLE_RATE, np.int16), SAMPLE_RATE, None)
    motion = np.abs(np.diff(LAYOUT.opening(decoder.landmarks(silent)))).max()
    size = sum(value.nbytes for value in fitted.lips.tensors().values()) / 2**20
    figures = held_out_figures(decoder.landmarks(code[TRAINING:]), truth, LAYOUT)
    figures |= {
        "opening, blocks left out": Figure(fitted.opening, "correlation", note="of the training frames"),
        "silence: motion of the gap": Figure(float(motion), "px", 1.0),
        "fit": Figure(fitted.seconds, "s", 60.0),
        "size": Figure(size, "MiB"),
    }
    figures |= compared("channels alone", decoder.landmarks(universal[TRAINING:]), truth)
    figures |= compared("prototype", decoder.landmarks(recording.sketch[TRAINING:]), truth)
    if options.speech is not None:
        heard = (read_speech(path) for path in sorted(options.speech.glob("*.npz")))
        speech = list(itertools.islice((one for one in heard if one.held_out), options.sentences))
        figures |= strangers(actor, speech, recording.codes[:TRAINING])
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", type=Path, required=True, help="the asset whisper-base")
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--sentences", type=int, default=30, help="how many at most")
    parser.add_argument("--threads", type=int, default=2)
    run("personal_lips", measure_all, parser)


if __name__ == "__main__":
    main()
