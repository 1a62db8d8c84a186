"""The render host as a process of its own, for tests and benchmarks: starts it, asks it, collects answers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from viseme.host.v1 import host_pb2, host_pb2_grpc

ROOT = Path(__file__).parents[1]
RATE = 24000


@dataclass
class RenderProcess:
    """A running host."""

    process: subprocess.Popen[bytes]
    channel: grpc.Channel

    @property
    def render(self) -> host_pb2_grpc.RenderServiceStub:
        """Its service."""
        return host_pb2_grpc.RenderServiceStub(self.channel)


@contextmanager
def render_process(
    directory: Path,
    home: Path,
    threads: int = 2,
    python: Path = Path(sys.executable),
    assets: Mapping[str, Path] | None = None,
) -> Iterator[RenderProcess]:
    """Runs the host as the server does: through links in a fresh directory.

    Args:
        directory: For its links, work directory and socket.
        home: VISEME_HOME; compiled kernels are kept there.
        threads: Its `--threads`.
        python: Interpreter of its environment.
        assets: Directories of its assets by name.
    """
    (directory / "python").mkdir(parents=True)
    (directory / "work").mkdir()
    (directory / "python" / "model_hosts").symlink_to(ROOT / "model_hosts")
    (directory / "python" / "viseme").symlink_to(ROOT / "protos" / "viseme")
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [
            *(str(python), "-m", "model_hosts.talking_gaussian"),
            *("--socket", str(directory / "s"), "--hello-fd", str(writing)),
            *("--threads", str(threads), "--grace", "1"),
            *(part for name, path in (assets or {}).items() for part in ("--asset", f"{name}={path}")),
        ],
        cwd=directory / "work",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(directory / "python"), "VISEME_HOME": str(home)},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[writing],
        start_new_session=True,
    )
    os.close(writing)
    with os.fdopen(reading) as pipe:
        hello = json.loads(pipe.readline())
    channel = grpc.insecure_channel(hello["address"])
    try:
        yield RenderProcess(process, channel)
    finally:
        channel.close()
        process.terminate()
        process.wait(10)
        assert process.stdin is not None
        process.stdin.close()


def config(bundle: Path, seed: int = 1, rate: int = RATE) -> host_pb2.RenderRequest:
    """The first request."""
    return host_pb2.RenderRequest(
        config=host_pb2.RenderRequest.Config(bundle=str(bundle), seed=seed, sample_rate=rate)
    )


def speech(
    seconds: float, number: int = 0, end: bool = False, phonemes: bool = True
) -> host_pb2.RenderRequest:
    """A noisy piece of speech with a sound every tenth of a second."""
    rng = np.random.default_rng(number)
    pcm = rng.integers(-6000, 6000, round(seconds * RATE)).astype("<i2").tobytes()
    piece = host_pb2.RenderRequest.Speech(pcm=pcm, end_of_sentence=end)
    if phonemes:
        for k in range(math.ceil(seconds * 10)):
            end_seconds = min((k + 1) / 10, seconds)
            piece.phonemes.add(symbol="mɑps"[k % 4], start_seconds=k / 10, end_seconds=end_seconds)
    return host_pb2.RenderRequest(speech=piece)


@dataclass
class Rendered:
    """The answers of a call: the file, first frame and number of frames of each fragment, and the summary."""

    data: bytes = b""
    fragments: list[tuple[int, int]] = field(default_factory=list)
    summary: host_pb2.RenderResponse.Summary = field(default_factory=host_pb2.RenderResponse.Summary)


def collect(responses: Iterable[host_pb2.RenderResponse]) -> Rendered:
    """Reads a call to its end."""
    rendered = Rendered()
    pieces = []
    for response in responses:
        if response.WhichOneof("payload") == "fragment":
            pieces.append(response.fragment.data)
            rendered.fragments.append((response.fragment.first_frame, response.fragment.frame_count))
        else:
            rendered.summary = response.summary
    rendered.data = b"".join(pieces)
    return rendered


def render(host: RenderProcess, *requests: host_pb2.RenderRequest) -> Rendered:
    """One whole call."""
    return collect(host.render.Render(iter(requests), timeout=120))
