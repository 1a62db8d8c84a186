"""Recordings as people's telephones, browsers and programs make them."""

from __future__ import annotations

import io
import math
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

CONTAINERS = {
    "ogg": ("ogg", "libopus", 48000),  # Telegram
    "webm": ("webm", "libopus", 48000),  # browsers
    "mp4": ("mp4", "aac", 44100),
    "m4a": ("ipod", "aac", 48000),  # telephones
    "mp3": ("mp3", "libmp3lame", 44100),
    "wav": ("wav", "pcm_s16le", 22050),
    "flac": ("flac", "flac", 44100),
}


def tone(seconds: float, rate: int, hertz: float = 440.0) -> npt.NDArray[np.int16]:
    """A sine of 0.3 of full scale, int16 [n]."""
    time = np.arange(round(seconds * rate)) / rate
    return np.round(0.3 * 32767 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def recording(
    kind: str, seconds: float = 2.0, layout: str = "mono", rate: int | None = None, silent: bool = False
) -> bytes:
    """A recording of a 440 Hz tone in one of CONTAINERS."""
    container_name, codec, usual_rate = CONTAINERS[kind]
    rate = rate or usual_rate
    out = io.BytesIO()
    with av.open(out, "w", format=container_name) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        channels = stream.layout.nb_channels
        samples = np.zeros(round(seconds * rate), np.int16) if silent else tone(seconds, rate)
        if len(samples):
            frame = av.AudioFrame.from_ndarray(
                np.repeat(samples, channels)[None], format="s16", layout=layout
            )
            frame.sample_rate = rate
            frame.pts = 0
            frame.time_base = Fraction(1, rate)
            resampler = av.AudioResampler(
                format=stream.format.name, layout=layout, rate=rate, frame_size=stream.frame_size or 1024
            )
            for piece in (*resampler.resample(frame), *resampler.resample(None)):
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
        else:
            container.start_encoding()
    return out.getvalue()


def silent_film(kind: str = "mp4", seconds: float = 1.0) -> bytes:
    """A video without a sound track."""
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        picture = np.zeros((96, 64), np.uint8)
        for index in range(round(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def fragmented_video(seconds: float, rate: int = 24000, size: int = 64) -> bytes:
    """A fragmented MP4 like a render host's: AAC, and H.264 at 25 frames a second, ceil(n / rate * 25)."""
    out = io.BytesIO()
    options = {"movflags": "delay_moov+default_base_moof+frag_keyframe"}
    with av.open(out, "w", format="mp4", options=options) as container:
        pictures = container.add_stream(
            "libx264", rate=25, options={"preset": "ultrafast", "g": "25", "bf": "0"}
        )
        assert isinstance(pictures, av.VideoStream)
        pictures.width = pictures.height = size
        pictures.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=rate, layout="mono")
        assert isinstance(sound, av.AudioStream)
        samples = tone(1.0, rate).astype(np.float32)[None] / 32768
        total = round(seconds * rate)
        done = 0
        for index in range(math.ceil(total * 25 / rate)):
            frame = av.VideoFrame.from_ndarray(
                np.full((size * 3 // 2, size), index % 200, np.uint8), format="yuv420p"
            )
            frame.pts = index
            container.mux(pictures.encode(frame))
            while done < min(total, (index + 1) * rate // 25):
                length = min(1024, total - done)
                start = done % (rate - 1024)
                piece = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples[:, start : start + length]), format="fltp", layout="mono"
                )
                piece.sample_rate = rate
                piece.pts = done
                piece.time_base = Fraction(1, rate)
                container.mux(sound.encode(piece))
                done += length
        container.mux(pictures.encode(None))
        container.mux(sound.encode(None))
    return out.getvalue()
