"""A stand-in for the Python that exports, hears and imports: `-m model_hosts.talking_gaussian.upstream …`.

It writes the files that the real tools write, as small as can be; `film` is the real one's work.
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
import zipfile
from pathlib import Path

import numpy as np


def main() -> int:
    assert sys.argv[1:3] == ["-m", "model_hosts.talking_gaussian.upstream"]
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("source", type=Path)
    for name in ("encoder", "out", "data", "wav"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("name", "display-name", "license", "voice"):
        parser.add_argument(f"--{name}")
    options = parser.parse_args(sys.argv[3:])
    if options.command == "film":
        from model_hosts.talking_gaussian.upstream.__main__ import main as real

        return real(sys.argv[3:])
    {"export": export, "features": features, "import": bundle}[options.command](options)
    return 0


def export(options: argparse.Namespace) -> None:
    if (options.source / "broken").exists():
        sys.exit("error: labels.npz cannot be read")
    options.out.mkdir(parents=True)
    for split, count in (("train", 50), ("val", 5)):
        frames = {"frames": [{"img_id": number} for number in range(count)]}
        (options.out / f"transforms_{split}.json").write_text(json.dumps(frames), encoding="utf-8")
    np.save(options.out / "aud_ds.npy", np.zeros((55, 16, 29), np.float32))


def features(options: argparse.Namespace) -> None:
    assert (options.data / "aud.wav").exists()
    with wave.open(str(options.source)) as speech:
        frames = -(-speech.getnframes() * 25 // speech.getframerate())
    np.save(options.out, np.zeros((frames, 16, 29), np.float32))


def bundle(options: argparse.Namespace) -> None:
    assert zipfile.is_zipfile(options.source)
    assert (options.data / "aud.wav").exists()
    options.out.mkdir()
    card = {"name": options.name, "display_name": options.display_name, "license": options.license}
    (options.out / "avatar.json").write_text(json.dumps(card), encoding="utf-8")
    (options.out / "thumbnail.png").write_bytes(b"\x89PNG")


if __name__ == "__main__":
    sys.exit(main())
