"""Training data of the lip network: speech with phoneme times to features and articulation channels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.articulation import Phone, channels
from model_hosts.talking_gaussian.driving.phonemes import SILENCE
from model_hosts.talking_gaussian.driving.whisper_features import FEATURE_RATE, FeatureStream, WhisperEncoder

Doubles = npt.NDArray[np.float64]
Halves = npt.NDArray[np.float16]

SAMPLE_RATE = 24000


@dataclass(frozen=True)
class Speech:
    """A sentence with the times of its phonemes.

    Attributes:
        samples: Float, 24 kHz, full scale 1.
        phones: Tile the samples.
        voice: Who speaks.
        held_out: Not for training.
    """

    samples: Doubles
    phones: tuple[Phone, ...]
    voice: str
    held_out: bool


@dataclass(frozen=True)
class Example:
    """A stretch of speech as the network sees it, at 50 a second.

    Attributes:
        features: `[N, 512]`.
        targets: `[N, len(CHANNELS)]` articulation channels.
        phones: Phonemes.
        held_out: Not for training.
        clean: Not augmented.
    """

    features: Halves
    targets: Halves
    phones: tuple[Phone, ...]
    held_out: bool
    clean: bool


def read_speech(path: Path) -> Speech:
    """Reads a file written by tools/lips/corpus.py."""
    with np.load(path) as file:
        phones = tuple(
            Phone(str(symbol), float(start), float(end), int(stress))
            for symbol, (start, end), stress in zip(
                file["symbols"], file["times"], file["stress"], strict=True
            )
        )
        samples = file["samples"].astype(np.float64) / 32768.0
        return Speech(samples, phones, str(file["voice"]), bool(file["held_out"]))


def augmented(speech: Speech, random: np.random.Generator) -> Speech:
    """The same words in another room: speed and pitch, echo, band, noise and level change."""
    samples, phones = speech.samples, speech.phones
    factor = float(random.uniform(0.87, 1.15))
    places = np.arange(int(len(samples) / factor)) * factor
    samples = np.interp(places, np.arange(len(samples)), samples)
    phones = tuple(
        Phone(phone.symbol, phone.start / factor, phone.end / factor, phone.stress) for phone in phones
    )
    if random.random() < 0.6:
        samples = _echoed(samples, random)
    if random.random() < 0.5:
        samples = _filtered(samples, random)
    level = np.sqrt(np.mean(samples**2)) + 1e-9
    if random.random() < 0.7:
        noise = _noise(len(samples), random)
        samples = samples + noise * level * 10.0 ** (-random.uniform(6.0, 32.0) / 20.0)
    samples = samples * (0.07 / level) * 10.0 ** (random.uniform(-16.0, 9.0) / 20.0)
    return Speech(np.clip(samples, -1.0, 1.0), phones, speech.voice, speech.held_out)


def joined(sentences: Sequence[Speech], random: np.random.Generator) -> Speech:
    """Sentences one after another with pauses of up to a second between them."""
    samples: list[Doubles] = []
    phones: list[Phone] = []
    length = 0
    for sentence in sentences:
        pause = int(random.uniform(0.0, 1.0) ** 2 * SAMPLE_RATE)
        for part, spoken in ((np.zeros(pause), None), (sentence.samples, sentence.phones)):
            start = length / SAMPLE_RATE
            if spoken is None:
                phones.append(Phone(SILENCE, start, start + len(part) / SAMPLE_RATE))
            else:
                phones += [Phone(p.symbol, p.start + start, p.end + start, p.stress) for p in spoken]
            samples.append(part)
            length += len(part)
    first = sentences[0]
    return Speech(np.concatenate(samples), tuple(phones), first.voice, first.held_out)


def example(speech: Speech, encoder: WhisperEncoder, clean: bool) -> Example:
    """Features exactly as a running stream gives them, and the channels to be found in them."""
    count = len(speech.samples) * FEATURE_RATE // SAMPLE_RATE
    stream = FeatureStream(encoder, SAMPLE_RATE)
    stream.push((np.clip(speech.samples, -1.0, 1.0) * 32767.0).astype(np.int16))
    features = stream.features(0, count).astype(np.float16)
    return Example(features, _targets(speech.phones, count), speech.phones, speech.held_out, clean)


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    """Keeps examples in one .npz file, without the targets, which follow from the phonemes."""
    phones = [[[p.symbol, p.start, p.end, p.stress] for p in one.phones] for one in examples]
    np.savez(
        path,
        features=np.concatenate([one.features for one in examples]),
        lengths=np.array([len(one.targets) for one in examples]),
        flags=np.array([(one.held_out, one.clean) for one in examples]),
        phones=np.array(json.dumps(phones)),
    )


def read_examples(path: Path) -> list[Example]:
    """Reads what `write_examples` kept."""
    with np.load(path) as file:
        cuts = np.cumsum(file["lengths"])[:-1]
        features = np.split(file["features"], cuts)
        phones = [tuple(Phone(*phone) for phone in one) for one in json.loads(str(file["phones"]))]
        return [
            Example(one, _targets(spoken, len(one)), spoken, bool(held_out), bool(clean))
            for one, spoken, (held_out, clean) in zip(features, phones, file["flags"], strict=True)
        ]


def _targets(phones: Sequence[Phone], count: int) -> Halves:
    # Feature i is centred on second (i + 0.5) / 50: sample 2 i + 1 of the articulation grid.
    return channels(phones, 1, 2 * count)[::2].astype(np.float16)


def _echoed(samples: Doubles, random: np.random.Generator) -> Doubles:
    length = int(random.uniform(0.05, 0.35) * SAMPLE_RATE)
    decay = np.exp(-np.arange(length) * (5.0 / length))
    response = random.normal(size=length) * decay * random.uniform(0.02, 0.10)
    response[0] = 1.0
    size = 1 << (len(samples) + length).bit_length()
    spectrum = np.fft.rfft(samples, size) * np.fft.rfft(response, size)
    return np.asarray(np.fft.irfft(spectrum, size)[: len(samples)])


def _filtered(samples: Doubles, random: np.random.Generator) -> Doubles:
    hertz = np.fft.rfftfreq(len(samples), 1.0 / SAMPLE_RATE)
    high = random.uniform(3000.0, 9000.0)
    low = random.uniform(20.0, 300.0)
    tilt = (np.maximum(hertz, 50.0) / 1000.0) ** random.uniform(-0.35, 0.35)
    gain = tilt / (1.0 + (hertz / high) ** 8) / (1.0 + (low / np.maximum(hertz, 1.0)) ** 4)
    return np.asarray(np.fft.irfft(np.fft.rfft(samples) * gain, len(samples)))


def _noise(count: int, random: np.random.Generator) -> Doubles:
    """Noise of unit power with a random slope of its spectrum and slow swells."""
    spectrum = np.fft.rfft(random.normal(size=count))
    hertz = np.maximum(np.fft.rfftfreq(count, 1.0 / SAMPLE_RATE), 30.0)
    noise = np.fft.irfft(spectrum * hertz ** -random.uniform(0.0, 1.2), count)
    knots = random.uniform(0.3, 1.5, size=max(2, count // (SAMPLE_RATE // 2)))
    noise *= np.interp(np.linspace(0.0, 1.0, count), np.linspace(0.0, 1.0, len(knots)), knots)
    return np.asarray(noise / (np.sqrt(np.mean(noise**2)) + 1e-12))
