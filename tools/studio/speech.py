"""Her voice: Kokoro speaks the script, with the times of all phones. Needs the Kokoro host's requirements."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from model_hosts.kokoro.model import KokoroModel
from model_hosts.kokoro.phonemes import SAMPLE_RATE, SAMPLES_PER_FRAME
from model_hosts.kokoro.phonemise import Phonemiser
from model_hosts.kokoro.synthesis import Synthesiser
from model_hosts.kokoro.voices import VoiceFiles
from tools.studio.script import SENTENCES, SPEED, VOICE


def write_speech(assets: Path, out: Path) -> None:
    """Speak the script into out/speech.npz.

    The file holds `samples` int16 of all sentences one after the other, `lengths` of the sentences,
    `sample_rate`, and `phones`: JSON, for each sentence a list of [symbol, start, end, stress], in seconds.

    Args:
        assets: folder with the assets kokoro-82m-int8 and kokoro-voices (`viseme assets install`).
        out: folder to write to.
    """
    model = next((assets / "kokoro-82m-int8").glob("*.onnx"))
    synthesiser = Synthesiser(KokoroModel(model, 2), VoiceFiles(assets / "kokoro-voices"), Phonemiser())
    frame = SAMPLES_PER_FRAME / SAMPLE_RATE
    samples, lengths, phones = [], [], []
    for text in SENTENCES:
        offset = 0.0
        spoken: list[tuple[str, float, float, int]] = []
        count = 0
        for piece in synthesiser.speak(text, VOICE, SPEED):
            spoken += [
                (p.symbol, offset + p.start * frame, offset + p.end * frame, p.stress) for p in piece.phonemes
            ]
            samples.append((np.clip(piece.audio, -1, 1) * 32767).astype(np.int16))
            count += len(piece.audio)
            offset = count / SAMPLE_RATE
        lengths.append(count)
        phones.append(spoken)
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out / "speech.npz",
        samples=np.concatenate(samples),
        lengths=np.array(lengths),
        sample_rate=SAMPLE_RATE,
        phones=json.dumps(phones, ensure_ascii=False),
    )
