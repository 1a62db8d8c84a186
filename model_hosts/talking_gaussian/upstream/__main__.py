"""`python -m model_hosts.talking_gaussian.upstream`: import, render, export, hear. See docs/upstream.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.driving.whisper_features import SAMPLE_RATE
from model_hosts.talking_gaussian.images import encode_png
from model_hosts.talking_gaussian.preprocess.dataset import load
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.upstream.bundle import UpstreamBundle
from model_hosts.talking_gaussian.upstream.driving import read_units
from model_hosts.talking_gaussian.upstream.export import AUDIO, FPS, Extras, audio_windows, export_layout
from model_hosts.talking_gaussian.upstream.film import write_film
from model_hosts.talking_gaussian.upstream.importing import Card, import_avatar
from model_hosts.talking_gaussian.upstream.layout import read_layout
from model_hosts.talking_gaussian.upstream.model import read_model
from model_hosts.talking_gaussian.upstream.render import render_frames
from model_hosts.talking_gaussian.upstream.speech import (
    heard_units,
    load_encoder,
    read_speech,
    speech_features,
)

FloatArray = npt.NDArray[np.float32]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (OSError, ValueError) as error:  # BundleInvalid, CheckpointInvalid and DatasetInvalid are such
        _say(f"error: {error}")
        return 1
    return 0


def _import(options: argparse.Namespace) -> None:
    model = read_model(options.checkpoints)
    data = read_layout(options.data, model.audio_features, options.audio)
    if options.units:
        units = read_units(options.units, len(data.views))
    elif options.encoder:
        wav = options.wav or options.data / "aud.wav"
        units = heard_units(read_speech(wav), load_encoder(options.encoder), len(data.views))
    else:
        raise ValueError("give --encoder (and the speech) or --units: they tie the mouth to what is spoken")
    card = Card(
        name=options.name,
        display_name=options.display_name or options.name,
        description=options.description,
        license=options.license,
        attribution=options.attribution,
        voice=options.voice,
    )
    bundle = import_avatar(model, data, units, card)
    bundle.write(options.out)
    _say(f"{options.out}: {model.count('face')} Gaussians of the face, {model.count('mouth')} of the mouth")


def _render(options: argparse.Namespace) -> None:
    bundle = UpstreamBundle.read(options.bundle)
    data = read_layout(options.data, bundle.info.audio_features, options.audio)
    frames = data.held_out.tolist() if options.frames is None else list(options.frames)
    if frames and not 0 <= min(frames) <= max(frames) < len(data.views):
        raise ValueError(f"the recording has the frames 0 to {len(data.views) - 1}")
    options.out.mkdir(parents=True, exist_ok=True)
    drawn = render_frames(bundle, data, frames, paste_torso=not options.still)
    for number, image in zip(frames, drawn, strict=True):
        (options.out / f"{number:06d}.png").write_bytes(encode_png(image))
    _say(f"{options.out}: {len(frames)} frames")


def _export(options: argparse.Namespace) -> None:
    data = load(options.recording)
    landmarks = _read_array(options.landmarks or options.recording / "truth.npz")
    if options.features:
        audio = _read_array(options.features)
    else:
        if not options.encoder:
            raise ValueError("give --encoder, or --features with audio features of your own")
        samples = read_speech(options.wav or options.recording / "audio.wav")
        steps = speech_features(samples, load_encoder(options.encoder), data.count)
        audio = audio_windows(steps, data.count)
    export_layout(data, Extras(audio, landmarks), options.out)
    _say(f"{options.out}: {len(data.training)} frames to train on, {len(data.held_out)} held out")


def _features(options: argparse.Namespace) -> None:
    recorded = _read_array(options.data / AUDIO)
    samples = read_speech(options.wav)
    count = -(-len(samples) * FPS // SAMPLE_RATE)
    like = (read_speech(options.data / "aud.wav"), len(recorded))
    steps = speech_features(samples, load_encoder(options.encoder), count, like)
    np.save(options.out, audio_windows(steps, count))
    _say(f"{options.out}: features of {count} frames")


def _film(options: argparse.Namespace) -> None:
    _say(f"{options.out}: {write_film(options.pictures, options.wav, options.out)} frames")


def _read_array(path: Path) -> FloatArray:
    """The array of a .npy file, or `landmarks` of an .npz."""
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded:
            if "landmarks" not in loaded.files:
                raise DatasetInvalid(f"{path.name} lacks landmarks")
            return np.asarray(loaded["landmarks"], np.float32)
    return np.asarray(loaded, np.float32)


def _frames(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last) if last else int(first) + 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_hosts.talking_gaussian.upstream", description=__doc__
    )
    commands = parser.add_subparsers(required=True, metavar="import | render | export | features | film")

    add = commands.add_parser("import", help="make a bundle of checkpoints")
    add.set_defaults(run=_import)
    add.add_argument("checkpoints", type=Path, nargs="+", help="chkpnt_fuse_*.pth, or the face's and mouth's")
    add.add_argument("--data", type=Path, required=True, help="the data directory they were trained on")
    add.add_argument("--audio", help="file of audio features there; default: the one that fits the model")
    add.add_argument("--encoder", type=Path, help="directory of the asset whisper-base")
    add.add_argument("--wav", type=Path, help="speech of the recording; default: aud.wav of the data")
    add.add_argument("--units", type=Path, help="tracked face units, .npz; instead of --encoder")
    add.add_argument("--out", type=Path, required=True, help="bundle to write: a directory or a .zip")
    add.add_argument("--name", default="avatar", help="resource id")
    add.add_argument("--display-name", help="default: the name")
    add.add_argument("--description", default="")
    add.add_argument("--license", default="")
    add.add_argument("--attribution", default="")
    add.add_argument("--voice", default="voices/af_heart")

    draw = commands.add_parser("render", help="draw frames of the recording, as the original does")
    draw.set_defaults(run=_render)
    draw.add_argument("bundle", type=Path)
    draw.add_argument("--data", type=Path, required=True)
    draw.add_argument("--audio", help="see import")
    draw.add_argument("--frames", type=_frames, help="FIRST:LAST (LAST not drawn); default: those held out")
    draw.add_argument("--still", action="store_true", help="over the bundle's background, not each torso")
    draw.add_argument("--out", type=Path, required=True, help="directory for PNG files")

    write = commands.add_parser("export", help="write a recording in the original's layout")
    write.set_defaults(run=_export)
    write.add_argument(
        "recording", type=Path, help="directory with clip.mp4, labels.npz, truth.npz, plate.png"
    )
    write.add_argument("--landmarks", type=Path, help="478 or 68 a frame, .npy or .npz; default: truth.npz")
    write.add_argument("--features", type=Path, help="audio windows [frames, 16, C], .npy; else --encoder")
    write.add_argument("--encoder", type=Path, help="directory of the asset whisper-base")
    write.add_argument("--wav", type=Path, help="speech of the recording; default: its audio.wav")
    write.add_argument("--out", type=Path, required=True, help="directory to write")

    hear = commands.add_parser("features", help="audio features of speech, as an exported recording's are")
    hear.set_defaults(run=_features)
    hear.add_argument("wav", type=Path)
    hear.add_argument("--data", type=Path, required=True, help="an exported recording, with its aud.wav")
    hear.add_argument("--encoder", type=Path, required=True, help="directory of the asset whisper-base")
    hear.add_argument("--out", type=Path, required=True, help=".npy to write: [frames, 16, 29]")

    join = commands.add_parser("film", help="a silent video and its speech in a fragmented MP4")
    join.set_defaults(run=_film)
    join.add_argument("pictures", type=Path)
    join.add_argument("--wav", type=Path, required=True)
    join.add_argument("--out", type=Path, required=True)
    return parser


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
