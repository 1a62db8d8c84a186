"""H.264 and AAC encoders that answer frame by frame, for a live stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt
from av.audio.codeccontext import AudioCodecContext
from av.video.codeccontext import VideoCodecContext

from model_hosts.talking_gaussian.bundle import FPS
from model_hosts.talking_gaussian.rendering.rasteriser import YuvImage

KEY_INTERVAL = 2 * FPS
"""Frames from one key frame to the next: a viewer can begin, and seek, every two seconds."""
AAC_FRAME = 1024
"""Samples of an AAC frame. The first is the encoder's priming: it starts this many samples before time 0."""
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
"""Sample rates that AAC knows; the audio track keeps the rate of the speech."""
_GLOBAL_HEADER = 1 << 22
# FFmpeg's numbers of: limited range; BT.601 matrix; BT.709 primaries and transfer (those of sRGB displays).
# Of the two matrices, BT.601 is also what players assume that ignore tags on pictures of this size.
_LIMITED, _BT601, _BT709 = 1, 6, 1
_PRESET = "superfast"
_CRF = "20"


@dataclass(frozen=True)
class Picture:
    """An encoded frame: H.264 in Annex B form."""

    data: bytes
    key: bool


class VideoEncoder:
    """libx264, one packet out for each frame in.

    Args:
        width: Pixels, even.
        height: Pixels, even.
    """

    def __init__(self, width: int, height: int) -> None:
        codec = av.CodecContext.create("libx264", "w")
        assert isinstance(codec, VideoCodecContext)  # noqa: S101 - narrows the type, libx264 is video
        codec.width, codec.height = width, height
        codec.pix_fmt = "yuv420p"
        codec.time_base = Fraction(1, FPS)
        codec.framerate = Fraction(FPS)
        codec.thread_count = 1
        codec.flags |= _GLOBAL_HEADER
        codec.color_range, codec.colorspace = _LIMITED, _BT601
        codec.color_primaries = codec.color_trc = _BT709
        codec.options = {
            "preset": _PRESET,
            "crf": _CRF,
            "profile": "high",
            # Like tune=zerolatency (nothing is held back) without its slices.
            "x264-params": f"bframes=0:rc-lookahead=0:sync-lookahead=0:mbtree=0:force-cfr=1:scenecut=0:"
            f"keyint={KEY_INTERVAL}:min-keyint={KEY_INTERVAL}:chromaloc=1",
        }
        codec.open()
        self._codec = codec
        self._count = 0

    @property
    def parameter_sets(self) -> bytes:
        """SPS and PPS in Annex B form."""
        return bytes(self._codec.extradata or b"")

    def encode(self, image: YuvImage) -> Picture:
        """Encodes the next frame.

        Args:
            image: uint8 [height * 3 / 2, width], see `YuvImage`.
        """
        frame = av.VideoFrame.from_ndarray(image, format="yuv420p")
        frame.pts, frame.time_base = self._count, self._codec.time_base
        self._count += 1
        (packet,) = self._codec.encode(frame)
        return Picture(bytes(packet), packet.is_keyframe)


class AudioEncoder:
    """AAC-LC, mono, at the rate of the speech.

    Args:
        sample_rate: One of AAC_RATES.
    """

    def __init__(self, sample_rate: int) -> None:
        codec = av.CodecContext.create("aac", "w")
        assert isinstance(codec, AudioCodecContext)  # noqa: S101 - narrows the type, aac is audio
        codec.sample_rate = sample_rate
        codec.layout = "mono"
        codec.format = "fltp"
        codec.bit_rate = max(32_000, min(96_000, 3 * sample_rate))
        codec.flags |= _GLOBAL_HEADER
        codec.open()
        self._codec = codec
        self._rate = sample_rate
        self._waiting = np.empty(0, np.int16)

    @property
    def specific_config(self) -> bytes:
        """AudioSpecificConfig of ISO/IEC 14496-3."""
        return bytes(self._codec.extradata or b"")

    @property
    def bit_rate(self) -> int:
        """Bits a second."""
        return int(self._codec.bit_rate or 0)

    def push(self, samples: npt.NDArray[np.int16]) -> Iterator[bytes]:
        """Encodes speech; gives the AAC frames that are complete."""
        self._waiting = np.concatenate([self._waiting, samples])
        while len(self._waiting) >= AAC_FRAME:
            yield from self._encode(self._waiting[:AAC_FRAME])
            self._waiting = self._waiting[AAC_FRAME:]

    def finish(self) -> Iterator[bytes]:
        """Encodes what is left, padded with silence, and ends the stream."""
        if len(self._waiting):
            yield from self._encode(np.pad(self._waiting, (0, AAC_FRAME - len(self._waiting))))
            self._waiting = self._waiting[:0]
        for packet in self._codec.encode(None):
            yield bytes(packet)

    def _encode(self, samples: npt.NDArray[np.int16]) -> Iterator[bytes]:
        scaled = (samples.astype(np.float32) / np.float32(32768))[None]
        frame = av.AudioFrame.from_ndarray(scaled, format="fltp", layout="mono")
        frame.sample_rate = self._rate
        for packet in self._codec.encode(frame):
            yield bytes(packet)
