"""Finished videos: fragments of a stream joined into one MP4 for any player, and what a file contains."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from server.errors import InternalError
from server.media.spool import disk_full_as_error
from server.version import __version__


@dataclass(frozen=True, slots=True)
class VideoMetadata:
    """What a video says about itself.

    Attributes:
        title: One line for a player to show.
        comment: Further facts, after the sentence that says how the video was made.
    """

    title: str
    comment: str = ""


@dataclass(frozen=True, slots=True)
class FinishedVideo:
    """A video that is complete on disk.

    Attributes:
        path: The file; it goes when its joiner is closed.
        size: Bytes.
        sha256: Lower-case hexadecimal.
        duration: Length of the sound track, or of the pictures when there is no sound, in seconds.
        frames: Number of pictures.
    """

    path: Path
    size: int
    sha256: str
    duration: float
    frames: int


class FragmentJoiner:
    """Collects a fragmented MP4 as it is drawn, and finishes it as one MP4 with its index in front.

    Nothing is encoded again, and memory does not grow with the length: pieces go to disk as they come. Use it
    as an asynchronous context manager; its files are gone afterwards, however it was left.
    """

    def __init__(self, scratch: Path | None = None) -> None:
        """Touches nothing yet.

        Args:
            scratch: Directory for the files, the store's `tmp`; None means the system's directory for such
            files.
        """
        self._scratch = scratch
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._stopped = threading.Event()
        self._writing = threading.Lock()

    async def __aenter__(self) -> FragmentJoiner:
        """Makes room for the files.

        Raises:
            DiskFull: If there is none.
        """
        await asyncio.to_thread(self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes the files, after stopping what may still be written to them."""
        self._stopped.set()
        await asyncio.shield(asyncio.to_thread(self._remove))

    async def add(self, data: bytes) -> None:
        """Takes the next piece: `ftyp`+`moov` first, then `moof`+`mdat` ones. Pieces may be split anywhere.

        Raises:
            DiskFull: If the disk is full.
        """
        await asyncio.to_thread(self._append, data)

    async def finish(self, metadata: VideoMetadata) -> FinishedVideo:
        """Writes the finished video.

        Raises:
            DiskFull: If the disk is full.
            InternalError: If the pieces are not a video.
        """
        return await asyncio.to_thread(self._join, metadata)

    def _begin(self) -> None:
        with disk_full_as_error():
            if self._scratch is not None:
                self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._directory = tempfile.TemporaryDirectory(prefix="video-", dir=self._scratch)

    def _remove(self) -> None:
        # A cancelled call leaves its thread running; the lock waits for it.
        with self._writing:
            if self._directory is not None:
                self._directory.cleanup()

    def _file(self, name: str) -> Path:
        if self._directory is None or self._stopped.is_set():
            raise InternalError("The video is not being written any more.")
        return Path(self._directory.name) / name

    def _append(self, data: bytes) -> None:
        with self._writing, disk_full_as_error(), self._file("fragments.mp4").open("ab") as file:
            file.write(data)

    def _join(self, metadata: VideoMetadata) -> FinishedVideo:
        with self._writing:
            source, target = self._file("fragments.mp4"), self._file("video.mp4")
            try:
                with disk_full_as_error():
                    duration, frames = self._remux(source, target, metadata)
                    digest, size = _digest(target)
            except (av.FFmpegError, FileNotFoundError, ValueError) as error:
                raise InternalError("The pieces that were drawn do not make a video.") from error
            source.unlink()
            return FinishedVideo(target, size, digest, duration, frames)

    def _remux(self, source: Path, target: Path, metadata: VideoMetadata) -> tuple[float, int]:
        """Copies the packets; returns the length in seconds and the number of pictures."""
        with (
            av.open(str(source)) as fragments,
            av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as finished,
        ):
            finished.metadata.update(_tags(metadata))
            streams: list[VideoStream | AudioStream] = [*fragments.streams.video, *fragments.streams.audio]
            tracks = {stream.index: finished.add_stream_from_template(stream) for stream in streams}
            clock = _Clock()
            for packet in fragments.demux(*streams):
                if self._stopped.is_set():
                    raise InternalError("The video is not being written any more.")
                if packet.dts is None:
                    continue
                clock.see(packet)
                packet.stream = tracks[packet.stream.index]
                finished.mux(packet)
            if not clock.pictures:
                raise ValueError("no pictures")
        return float(clock.audio_end or clock.video_end), clock.pictures


class _Clock:
    """Counts pictures and finds where the tracks end."""

    def __init__(self) -> None:
        self.pictures = 0
        self.video_end = Fraction(0)
        self.audio_end = Fraction(0)

    def see(self, packet: Packet[Stream]) -> None:
        """Takes a packet into account; its stream must still be the one it came from."""
        end = Fraction(0)
        if packet.pts is not None and packet.time_base is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
        if packet.stream.type == "video":
            self.pictures += 1
            self.video_end = max(self.video_end, end)
        else:
            self.audio_end = max(self.audio_end, end)


def _tags(metadata: VideoMetadata) -> dict[str, str]:
    """Metadata in the words of MP4; every video says that nobody was filmed."""
    made = f"AI-generated by viseme {__version__}"
    tags = {"title": metadata.title, "comment": f"{made}. {metadata.comment}".rstrip(), "description": made}
    return {key: value for key, value in tags.items() if value}


def _digest(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One track of a file.

    Attributes:
        kind: `video`, `audio`, or another of FFmpeg's.
        codec: FFmpeg's name of it, for example `h264`.
        start: Time of the first packet that is shown or heard, in seconds.
        duration: From nought to the end of the last packet, in seconds.
        packets: Number of packets; pictures when it is video.
        width: Pixels, 0 for audio.
        height: Pixels, 0 for audio.
        fps: Pictures a second, 0 for audio.
        sample_rate: Samples a second, 0 for video.
        channels: Number of channels, 0 for video.
    """

    kind: str
    codec: str
    start: float
    duration: float
    packets: int
    width: int = 0
    height: int = 0
    fps: float = 0.0
    sample_rate: int = 0
    channels: int = 0


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file contains.

    Attributes:
        format: FFmpeg's name of the container.
        size: Bytes.
        metadata: Tags.
        faststart: Whether the index of an MP4 stands before its contents.
        streams: The tracks.
    """

    format: str
    size: int
    metadata: dict[str, str]
    faststart: bool
    streams: tuple[StreamInfo, ...]

    @property
    def video(self) -> StreamInfo | None:
        """The first track of pictures."""
        return next((stream for stream in self.streams if stream.kind == "video"), None)

    @property
    def audio(self) -> StreamInfo | None:
        """The first track of sound."""
        return next((stream for stream in self.streams if stream.kind == "audio"), None)


def probe(path: Path) -> MediaInfo:
    """Reads every packet of a file of our own making, and says what is in it. Blocks; decodes nothing.

    Raises:
        av.FFmpegError: If it cannot be read.
    """
    with av.open(str(path)) as container:
        starts: dict[int, Fraction] = {}
        ends: dict[int, Fraction] = {}
        counts: dict[int, int] = {}
        for packet in container.demux():
            if packet.dts is None or packet.pts is None or packet.time_base is None:
                continue
            index = packet.stream.index
            start = packet.pts * packet.time_base
            # Priming packets of an audio encoder lie before nought and are not heard.
            starts[index] = min(starts.get(index, start), start)
            ends[index] = max(ends.get(index, start), start + (packet.duration or 0) * packet.time_base)
            counts[index] = counts.get(index, 0) + 1
        streams = tuple(
            _describe(
                stream,
                max(0.0, float(starts.get(stream.index, 0))),
                float(ends.get(stream.index, 0)),
                counts.get(stream.index, 0),
            )
            for stream in container.streams
        )
        return MediaInfo(
            format=container.format.name,
            size=path.stat().st_size,
            metadata=dict(container.metadata),
            faststart=_index_first(path),
            streams=streams,
        )


def _describe(stream: Stream, start: float, duration: float, packets: int) -> StreamInfo:
    codec = stream.codec_context.name if stream.codec_context else "unknown"
    if isinstance(stream, VideoStream):
        rate = stream.average_rate or stream.base_rate or Fraction(0)
        return StreamInfo(
            "video", codec, start, duration, packets, stream.width, stream.height, fps=float(rate)
        )
    if isinstance(stream, AudioStream):
        return StreamInfo(
            "audio", codec, start, duration, packets, sample_rate=stream.rate, channels=stream.channels
        )
    return StreamInfo(stream.type, codec, start, duration, packets)


def _index_first(path: Path) -> bool:
    """Whether `moov` comes before `mdat` in an ISO file (ISO/IEC 14496-12, 4.2)."""
    with path.open("rb") as file:
        while len(header := file.read(16)) >= 8:
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if kind in {b"moov", b"mdat"}:
                return kind == b"moov"
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            if size < 8:
                return False
            file.seek(size - len(header), os.SEEK_CUR)
    return False
