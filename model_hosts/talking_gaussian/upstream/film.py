"""The original's silent video and its speech in one fragmented MP4; no picture is encoded again."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import av
import numpy as np

from model_hosts.talking_gaussian.driving.whisper_features import SAMPLE_RATE
from model_hosts.talking_gaussian.preprocess.media import DatasetInvalid
from model_hosts.talking_gaussian.upstream.speech import read_speech

_FRAGMENTED: Final = {"movflags": "frag_keyframe+empty_moov+delay_moov"}


def write_film(pictures: Path, wav: Path, out: Path) -> int:
    """Writes the file; returns the number of pictures.

    The sound begins with the pictures and ends with them: the original draws a whole number of frames.

    Args:
        pictures: A video without sound.
        wav: The speech.
        out: An MP4 whose fragments can be sent one by one.

    Raises:
        DatasetInvalid: A file cannot be read.
    """
    sound = read_speech(wav)
    try:
        with (
            av.open(str(pictures)) as source,
            av.open(str(out), "w", format="mp4", options=_FRAGMENTED) as film,
        ):
            shown = source.streams.video[0]
            video = film.add_stream_from_template(shown)
            audio = film.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            packets = [packet for packet in source.demux(shown) if packet.dts is not None]
            length = round(len(packets) * SAMPLE_RATE / float(shown.average_rate or 25))
            sound = np.pad(sound[:length], (0, max(0, length - len(sound))))
            frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            frame.pts = 0
            for packet in packets:
                packet.stream = video
                film.mux(packet)
            for one in (frame, None):
                film.mux(audio.encode(one))
    except (OSError, av.FFmpegError, IndexError) as error:
        raise DatasetInvalid(f"{pictures.name} cannot be joined with {wav.name} ({error})") from error
    return len(packets)
