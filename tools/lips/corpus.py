"""Makes the speech that the lips are trained on: many voices, with the exact time of every phoneme.

Usage (in the environment of the kokoro host):
    python -m tools.lips.corpus OUT --assets VISEME_HOME/assets --minutes 32

Writes OUT/NNNN.npz: `samples` int16 at 24 kHz, `symbols`, `times` [P, 2] seconds, `stress` [P], `voice`,
`text` and `held_out`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from model_hosts.kokoro.model import KokoroModel
from model_hosts.kokoro.phonemes import SAMPLE_RATE
from model_hosts.kokoro.phonemise import Phonemiser
from model_hosts.kokoro.synthesis import Synthesiser
from model_hosts.kokoro.voices import VoiceFiles
from tools.lips.sentences import sentences

HELD_OUT = ("af_bella", "am_michael", "bf_emma", "bm_lewis", "zf_xiaoxiao", "zm_yunxi")
"""Voices that speak only held-out sentences."""
FRAMES_A_SECOND = 40
"""Phoneme times of the synthesiser are in frames of 25 ms."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--assets", type=Path, required=True, help="directory of installed assets")
    parser.add_argument("--minutes", type=float, default=32.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held-out", action="store_true", help="only the held-out voices, to measure with")
    options = parser.parse_args()
    voices = VoiceFiles(options.assets / "kokoro-voices")
    model = KokoroModel(options.assets / "kokoro-82m-int8" / "kokoro-v1.0.int8.onnx", options.threads)
    speaker = Synthesiser(model, voices, Phonemiser())
    options.out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(options.seed)
    texts = {
        (language, held_out): sentences(language, 1500, options.seed + 77 * held_out)
        for language in ("en", "zh")
        for held_out in (False, True)
    }
    names = sorted(voice.id for voice in voices.all() if voice.id in HELD_OUT or not options.held_out)
    spoken, number = 0.0, 0
    while spoken < 60.0 * options.minutes:
        name = names[number % len(names)]
        held_out = name in HELD_OUT
        language = "zh" if name.startswith("z") else "en"
        text = texts[language, held_out].pop()
        _speak(
            speaker, name, text, float(random.uniform(0.85, 1.2)), options.out / f"{number:04d}.npz", held_out
        )
        with np.load(options.out / f"{number:04d}.npz") as made:
            spoken += len(made["samples"]) / SAMPLE_RATE
        number += 1
        if number % 20 == 0:
            print(f"{number} sentences, {spoken / 60:.1f} of {options.minutes:.0f} minutes", flush=True)


def _speak(speaker: Synthesiser, voice: str, text: str, speed: float, path: Path, held_out: bool) -> None:
    audio, symbols, times, stress, offset = [], [], [], [], 0
    for piece in speaker.speak(text, voice, speed):
        for phoneme in piece.phonemes:
            symbols.append(phoneme.symbol)
            times.append(
                ((offset + phoneme.start) / FRAMES_A_SECOND, (offset + phoneme.end) / FRAMES_A_SECOND)
            )
            stress.append(phoneme.stress)
        offset += len(piece.audio) * FRAMES_A_SECOND // SAMPLE_RATE
        audio.append(piece.audio)
    samples = (np.clip(np.concatenate(audio), -1.0, 1.0) * 32767.0).astype(np.int16)
    np.savez_compressed(
        path,
        samples=samples,
        symbols=np.array(symbols),
        times=np.array(times),
        stress=np.array(stress),
        voice=voice,
        text=text,
        held_out=held_out,
    )


if __name__ == "__main__":
    main()
