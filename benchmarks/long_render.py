"""Renders of 1 s, 30 s and 10 min: sound and picture are of one length, and memory stays flat.

Usage:
    python -m benchmarks.long_render [--avatar BUNDLE] [--seconds 600] [--json]
    python -m benchmarks.long_render --avatar BUNDLE --seconds 300 --speech FILE … --encoder DIRECTORY
                                     --models DIRECTORY --output DIRECTORY [--host-python PYTHON]

Without --avatar a small synthetic one is rendered: neither figure depends on the avatar, the time does. With
--speech the avatar says these recordings again and again (in the environment of the trainer, for it looks at
the lips), and frames of the beginning, the middle and the end are left in the output folder.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import psutil
from viseme.host.v1 import host_pb2

from benchmarks._report import Figure, Figures, run
from tests.doubles.avatar import make_avatar
from tests.render_process import RATE, RenderProcess, config, render_process, speech

SETTLED = 30
"""Seconds of video after which everything that a render needs was allocated."""


def render_length(host: RenderProcess, bundle: Path, samples: int) -> tuple[float, float, list[int]]:
    """Renders so many samples; returns the seconds of video and audio, and memory after each second."""

    def requests() -> Iterator[host_pb2.RenderRequest]:
        yield config(bundle)
        for k in range(samples // RATE):
            yield speech(1.0, k, end=k % 4 == 3)
        if samples % RATE:
            yield speech(samples % RATE / RATE, end=True)

    process = psutil.Process(host.process.pid)
    video, audio, memory = 0.0, 0.0, [process.memory_info().rss]
    head = b""
    for response in host.render.Render(requests()):
        fragment = response.fragment
        if not fragment.data:
            continue
        if not head:
            head = fragment.data
            continue
        # Each fragment after the head is a file of its own: the benchmark's memory stays flat as well.
        with av.open(io.BytesIO(head + fragment.data), "r") as container:
            for packet in container.demux():
                if packet.pts is None or packet.duration is None or packet.time_base is None:
                    continue
                end = float((packet.pts + packet.duration) * packet.time_base)
                if packet.stream.type == "video":
                    video = max(video, end)
                else:
                    audio = max(audio, end)
        if (fragment.first_frame + fragment.frame_count) // 25 >= len(memory):
            memory.append(process.memory_info().rss)
    return video, audio, memory


def spoken(arguments: argparse.Namespace) -> Figures:
    """Figures of an avatar that follows real speech for a long time."""
    # What looks at pictures is only in the trainer's environment.
    from benchmarks._spoken_render import read_speech, render_speech  # noqa: PLC0415
    from model_hosts.talking_gaussian.preprocess.tools import Tools  # noqa: PLC0415

    tools = Tools(arguments.models / "face_landmarker.task", arguments.models / "selfie_segmenter.tflite")
    tools.check()
    speech = [read_speech(path) for path in arguments.speech]
    with tempfile.TemporaryDirectory(prefix="viseme-") as directory:
        scratch = Path(directory)
        assets = {"whisper-base": arguments.encoder.resolve()}
        with render_process(
            scratch / "host", scratch / "home", python=arguments.host_python, assets=assets
        ) as host:
            return render_speech(
                host, arguments.avatar.resolve(), speech, arguments.seconds, tools, arguments.output
            )


def measure(arguments: argparse.Namespace) -> Figures:
    """All figures."""
    if arguments.speech:
        return spoken(arguments)
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="viseme-") as directory:
        scratch = Path(directory)
        bundle = arguments.avatar
        if bundle is None:
            bundle = scratch / "synthetic"
            make_avatar(2_000, size=128).write(bundle)
        with render_process(scratch / "host", scratch / "home") as host:
            # Lengths that end within a frame of video and within one of sound.
            for seconds in (1, 30, arguments.seconds):
                video, audio, memory = render_length(host, bundle.resolve(), seconds * RATE + 777)
                frames = Figure(25 * abs(video - audio), "frames", 0.9999, note=f"{video:.3f} s of video")
                figures[f"tracks_differ_{seconds}_s"] = frames
                if len(memory) > 2 * SETTLED:
                    grown = (max(memory[SETTLED:]) - memory[SETTLED]) / 2**20
                    note = f"{memory[SETTLED] / 2**20:.0f} MiB after {SETTLED} s"
                    figures[f"memory_grows_{seconds}_s"] = Figure(grown, "MiB", 8, note=note)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--avatar", type=Path, help="a bundle directory or .zip")
    parser.add_argument("--seconds", type=int, default=600, help="length of the longest render")
    parser.add_argument("--speech", type=Path, nargs="+", help="recordings to say, with the four below")
    parser.add_argument("--encoder", type=Path, help="the asset whisper-base")
    parser.add_argument("--models", type=Path, help="face_landmarker.task and the other")
    parser.add_argument("--output", type=Path, help="folder for long_render.png")
    parser.add_argument(
        "--host-python", type=Path, default=Path(sys.executable), help="of the talking_gaussian host"
    )
    run("long_render", measure, parser)
