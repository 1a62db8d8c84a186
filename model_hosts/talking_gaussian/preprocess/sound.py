"""The sound of a video: 16 kHz mono, beginning with its first picture."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.preprocess.source import FPS, Source

Samples = npt.NDArray[np.int16]

SAMPLE_RATE = 16000
PER_FRAME = SAMPLE_RATE // FPS
_GAP = 0.06
"""Seconds without a packet that count as a gap, not as rounding."""


def read_sound(source: Source) -> Samples | None:
    """Decodes the first sound track from the time of the first picture on, int16 [n].

    Returns:
        None when there is no sound track, or when nothing of it can be decoded.
    """
    pieces: list[Samples] = []
    at = early = 0
    try:
        with av.open(str(source.path)) as container:
            if not container.streams.audio:
                return None
            begin = _first_picture(container)
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            for frame in container.decode(container.streams.audio[0]):
                place = at if frame.time is None else round((frame.time - begin) * SAMPLE_RATE)
                if place > source.limits.seconds * SAMPLE_RATE:
                    break
                if not pieces:
                    at = min(0, place)
                    early = -at
                if place - at > (_GAP * SAMPLE_RATE if pieces else 0):
                    pieces.append(np.zeros(place - at, np.int16))
                    at = place
                for piece in resampler.resample(frame):
                    pieces.append(piece.to_ndarray()[0])
                    at += len(pieces[-1])
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    except (OSError, av.FFmpegError):
        if not pieces:
            return None
    if not pieces:
        return None
    return np.concatenate(pieces)[early:]


def shifted(samples: Samples, seconds: float, frames: int) -> Samples:
    """The sound `seconds` earlier (later when negative), cut or filled up to the length of the frames."""
    out = np.zeros(frames * PER_FRAME, np.int16)
    offset = round(seconds * SAMPLE_RATE)
    begin = min(len(out), max(0, -offset))
    taken = samples[max(0, offset) :][: len(out) - begin]
    out[begin : begin + len(taken)] = taken
    return out


def write_wav(path: Path, samples: Samples) -> None:
    """Writes 16-bit mono WAV."""
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        out.writeframes(samples.astype("<i2").tobytes())


def read_wav(path: Path) -> Samples:
    """Reads what `write_wav` wrote.

    Raises:
        DatasetInvalid: The file is missing, damaged or of another kind.
    """
    try:
        with wave.open(str(path), "rb") as file:
            kind = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise DatasetInvalid(f"{path.name} cannot be read ({error})") from error
    if kind != (1, 2, SAMPLE_RATE):
        raise DatasetInvalid(f"{path.name} must be 16-bit mono of {SAMPLE_RATE} Hz")
    return np.frombuffer(data, "<i2").astype(np.int16)


def _first_picture(container: av.container.InputContainer) -> float:
    stream = container.streams.video[0]
    for frame in container.decode(stream):
        begin = float(frame.time or 0.0)
        break
    else:
        begin = 0.0
    container.seek(0)
    return begin
