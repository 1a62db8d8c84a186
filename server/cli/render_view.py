"""A video that is drawn from a recording: shown while it comes, then finished as one file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from server.cli.console import seconds_text, size_text
from server.cli.files import CHUNK, OutputFile
from server.cli.progress import ProgressDisplay

if TYPE_CHECKING:
    from viseme import Fragment, RenderSummary

_TASK: Final = "Drawing"


@dataclass(frozen=True, slots=True)
class RenderedVideo:
    """What was drawn: frames, seconds of sound and of work, bytes and their hash."""

    frames: int
    audio_seconds: float
    seconds: float
    size: int
    sha256: str


def collect(events: Iterable[Fragment | RenderSummary], avatar: str, output: OutputFile) -> RenderedVideo:
    """Shows a render while it arrives, and writes one finished, labelled MP4.

    Args:
        events: What `Client.render` gives.
        avatar: Who speaks, for the label.
        output: An open file; it is complete and has its name afterwards.

    Raises:
        VisemeError: As `Client.render`, and when the disk for temporary files is full.
        CommandError: If the file cannot be written.
    """
    return asyncio.run(_collect(events, avatar, output))


async def _collect(
    events: Iterable[Fragment | RenderSummary], avatar: str, output: OutputFile
) -> RenderedVideo:
    from viseme import Fragment

    from server.media.mp4 import FragmentJoiner, VideoMetadata

    began = time.monotonic()
    audio_seconds = 0.0
    async with FragmentJoiner() as joiner:
        with ProgressDisplay() as progress:
            for event in events:
                if isinstance(event, Fragment):
                    await joiner.add(event.data)
                    progress.update(_TASK, event.first_frame + event.frame_count, None, "frames")
                else:
                    audio_seconds = event.audio_seconds
            progress.finish(_TASK)
        video = await joiner.finish(VideoMetadata(title=avatar, comment=f"Avatar: {avatar}."))
        _copy(video.path, output)
    seconds = time.monotonic() - began
    return RenderedVideo(video.frames, audio_seconds, seconds, video.size, video.sha256)


def _copy(path: Path, output: OutputFile) -> None:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            output.write(chunk)
    output.commit()


def render_facts(video: RenderedVideo, path: Path) -> dict[str, Any]:
    """A finished video as JSON-ready data."""
    return {
        "output": str(path),
        "size_bytes": video.size,
        "sha256": video.sha256,
        "frames": video.frames,
        "audio_seconds": video.audio_seconds,
        "seconds": round(video.seconds, 3),
    }


def written_line(video: RenderedVideo, path: Path) -> str:
    """The sentence that says where the video is."""
    return (
        f"Written: {path} ({seconds_text(video.audio_seconds)} of video, {size_text(video.size)},"
        f" drawn in {seconds_text(video.seconds)})"
    )
